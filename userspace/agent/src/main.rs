//! The `descry` command.
#![forbid(unsafe_code)]
#![deny(clippy::print_stderr)]

#[macro_use]
mod say;

mod agent;
mod cli;
mod config;
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
use descry_telemetry::Counters;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    descry_probe::keep_large_blocks_apart();
    // Wrong usage ends here, with status 2 and clap's message.
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            say!("descry: {failure}");
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let reporting = |command: &dyn Fn(&Counters) -> Result<ExitCode, Failure>| {
        let telemetry = cli.own.start()?;
        let result = command(telemetry.counters());
        telemetry.end();
        result
    };
    match &cli.command {
        Command::Profile(arguments) => reporting(&|counters| profile::run(arguments, counters)),
        Command::Decode(arguments) => reporting(&|counters| decode::run(arguments, counters)),
        Command::Syscalls(arguments) => reporting(&|counters| syscalls::run(arguments, counters)),
        Command::Requests(arguments) => reporting(&|counters| requests::run(arguments, counters)),
        Command::Trace(arguments) => reporting(&|counters| trace::run(arguments, counters)),
        Command::Doctor(arguments) => reporting(&|_| doctor::run(arguments)),
        Command::Config(arguments) => reporting(&|_| config::run(arguments)),
        // It reads its configuration, and gives rights away, before it starts anything, its own telemetry too.
        Command::Agent(arguments) => agent::run(arguments, &cli.own),
    }
}
