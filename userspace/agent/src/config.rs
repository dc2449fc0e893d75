//! `descry config`, and the reading of the agent's file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use descry_config::{Loaded, MAX_BYTES, Problems};

use crate::agent;
use crate::cli::{ConfigAction, ConfigArgs};
use crate::failure::Failure;

/// Runs the command.
pub fn run(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        ConfigAction::Default => print(descry_config::DEFAULT),
        ConfigAction::Schema => {
            let schema = serde_json::to_string_pretty(&descry_config::schema()).context("the schema")?;
            print(&format!("{schema}\n"))
        }
        ConfigAction::Check { file } => match load(Some(file))?.and_then(agent::check) {
            Ok(_) => {
                say!("descry: {} is valid", file.display());
                Ok(ExitCode::SUCCESS)
            }
            Err(problems) => {
                for line in problems.lines(&file.display().to_string()) {
                    say!("{line}");
                }
                Ok(ExitCode::FAILURE)
            }
        },
    }
}

/// Reads the file, if there is one, and the variables of the environment.
///
/// # Errors
/// When the file cannot be read. What is wrong with its content is the inner error.
pub fn load(file: Option<&Path>) -> Result<Result<Loaded, Problems>, Failure> {
    let text = match file {
        Some(file) => read(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => String::new(),
    };
    Ok(descry_config::load(&text, |name| std::env::var(name).ok()))
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    // One byte more shows that the file is too large.
    File::open(file)?.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(anyhow::Error::new(error).context("cannot write to stdout")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
