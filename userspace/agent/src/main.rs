//! The `descry` command.
#![forbid(unsafe_code)]

mod agent;
mod cli;
mod config;
mod counted;
mod doctor;
mod failure;
mod measure;
mod output;
mod profile;
mod stop;
mod target;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    // Wrong usage ends here, with status 2 and clap's message.
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("descry: {failure}");
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    // It reads its configuration, and gives rights away, before anything else is started.
    if let Command::Agent(arguments) = &cli.command {
        return agent::run(arguments, &cli.own);
    }
    let telemetry = cli.own.start()?;
    let result = match &cli.command {
        Command::Profile(arguments) => profile::run(arguments, telemetry.counters()),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Agent(_) => Ok(ExitCode::SUCCESS),
    };
    telemetry.end();
    result
}
