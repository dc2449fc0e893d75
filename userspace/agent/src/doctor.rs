//! `descry doctor`: what this kernel and these rights allow.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use descry_probe::doctor::{self, Hook, Right};
use serde_json::json;

use crate::cli::{DoctorArgs, StatsFormat};
use crate::failure::Failure;

/// Runs the command.
pub fn run(arguments: &DoctorArgs) -> Result<ExitCode, Failure> {
    let (release, hooks, rights) = (doctor::release(), doctor::hooks(), doctor::rights());
    let text = match arguments.format {
        StatsFormat::Text => text(&release, &hooks, &rights),
        StatsFormat::Json => json(&release, &hooks, &rights),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")?;
    Ok(ExitCode::SUCCESS)
}

fn text(release: &str, hooks: &[Hook], rights: &[Right]) -> String {
    let mut text = format!("kernel {release}\n\nrights\n");
    for right in rights {
        text.push_str(&format!("  {:<20} {}\n", right.name, if right.held { "held" } else { "MISSING" }));
    }
    text.push_str("\nhooks\n");
    for hook in hooks {
        let state = if hook.available { "there" } else { "MISSING" };
        text.push_str(&format!("  {:<20} {state:<8} {}\n", hook.name, hook.needed_for));
        if !hook.available {
            text.push_str(&format!("  {:<20} {:<8} without it: {}\n", "", "", hook.without_it));
            text.push_str(&format!("  {:<20} {:<8} to get it: {}\n", "", "", hook.remedy));
        }
    }
    text
}

fn json(release: &str, hooks: &[Hook], rights: &[Right]) -> String {
    let hooks: Vec<_> = hooks
        .iter()
        .map(|hook| {
            json!({
                "name": hook.name,
                "available": hook.available,
                "needed_for": hook.needed_for,
                "without_it": hook.without_it,
                "remedy": hook.remedy,
            })
        })
        .collect();
    let rights: Vec<_> = rights.iter().map(|right| json!({"name": right.name, "held": right.held})).collect();
    format!("{:#}\n", json!({"kernel": release, "hooks": hooks, "rights": rights}))
}
