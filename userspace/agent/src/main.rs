//! The `descry` command.
#![forbid(unsafe_code)]

mod cli;
mod counted;
mod decode;
mod doctor;
mod failure;
mod last_line;
mod measure;
mod output;
mod profile;
mod requests;
mod stop;
mod syscalls;
mod target;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    descry_probe::keep_large_blocks_apart();
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
    let telemetry = cli.own.start()?;
    let result = match &cli.command {
        Command::Profile(arguments) => profile::run(arguments, telemetry.counters()),
        Command::Decode(arguments) => decode::run(arguments, telemetry.counters()),
        Command::Syscalls(arguments) => syscalls::run(arguments, telemetry.counters()),
        Command::Requests(arguments) => requests::run(arguments, telemetry.counters()),
        Command::Trace(arguments) => trace::run(arguments, telemetry.counters()),
        Command::Doctor(arguments) => doctor::run(arguments),
    };
    telemetry.end();
    result
}
