//! Everything that CI runs, in the order in which it finds the most the soonest.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::build_ebpf;
use crate::command;
use crate::fuzz;
use crate::install::{self, TESTS};
use crate::repo;
use crate::tidy;

/// Seconds that each fuzz target gets: all of CI has to end within an hour on two processors.
const FUZZ_SECONDS: u32 = 6;

/// Packages beside the workspace, each with a workspace of its own.
const APART: [&str; 3] = ["ebpf/programs", "tests/fuzz", "tests/workloads/rust"];

/// The options of `test`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out what needs root, other packages or minutes: the build of the kernel side, the kernel tests, fuzzing.
    #[arg(long)]
    fast: bool,
    /// How many jobs cargo runs at a time; by default one a processor.
    #[arg(long, short)]
    jobs: Option<u32>,
}

/// Runs all sections; one that fails does not stop the others, but the task fails.
pub fn run(args: &Args) -> Result<()> {
    let mut report = Report::default();
    if !args.fast {
        report.section("packages", || install::ensure(TESTS, "the tests"));
    }
    report.section("format", format);
    let objects = if args.fast {
        repo::root().join("ebpf/prebuilt")
    } else {
        let directory = repo::target().join("ebpf");
        report.section("kernel side from source", || build_ebpf::build(&directory, true));
        directory
    };
    let cargo = Cargo { objects, jobs: args.jobs };
    report.section("clippy", || {
        cargo.run(
            &["clippy", "--workspace", "--all-targets", "--features", "xtask/codegen"],
            &["--", "-D", "warnings"],
            &[],
        )
    });
    report.section("tidy", tidy::run);
    report
        .section("unit tests", || cargo.run(&["test", "--workspace", "--exclude", "descry-tests"], &[], &[]));
    if args.fast {
        // The pure ones among the tests from the outside.
        report.section("tests without the kernel", || {
            cargo.run(&["test", "--package", "descry-tests"], &[], &[("DESCRY_SKIP_KERNEL_TESTS", "1")])
        });
    } else {
        report
            .section("release build", || cargo.run(&["build", "--release", "--package", "descry"], &[], &[]));
        report.section("tests on this kernel", || {
            command::need_root("to load programs into the kernel")?;
            cargo.run(&["test", "--package", "descry-tests"], &[], &[])
        });
        report.section("fuzzing", || fuzz::all(FUZZ_SECONDS));
    }
    report.section("documentation", || {
        cargo.run(&["doc", "--workspace", "--no-deps", "--quiet"], &[], &[("RUSTDOCFLAGS", "-D warnings")])
    });
    report.finish()
}

fn format() -> Result<()> {
    command::run(repo::cargo().args(["fmt", "--all", "--check"]))?;
    for directory in APART {
        let manifest = repo::root().join(directory).join("Cargo.toml");
        command::run(repo::cargo().args(["fmt", "--all", "--check", "--manifest-path"]).arg(manifest))?;
    }
    Ok(())
}

/// Cargo with the kernel side that is under test.
struct Cargo {
    objects: PathBuf,
    jobs: Option<u32>,
}

impl Cargo {
    fn run(&self, words: &[&str], rest: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        command::run(self.command(words, rest).envs(environment.iter().copied()))
    }

    fn command(&self, words: &[&str], rest: &[&str]) -> Command {
        let mut command = repo::cargo();
        command.args(words);
        if let Some(jobs) = self.jobs {
            command.args(["--jobs", &jobs.to_string()]);
        }
        command.args(rest).env("DESCRY_EBPF_DIR", &self.objects as &Path);
        command
    }
}

/// How each section went.
#[derive(Default)]
struct Report {
    sections: Vec<(&'static str, Duration, Option<String>)>,
}

impl Report {
    fn section(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        eprintln!("\n======== {name}");
        let start = Instant::now();
        let error = work().err().map(|error| format!("{error:#}"));
        let took = start.elapsed();
        match &error {
            None => eprintln!("-------- {name}: done in {:.1} s", took.as_secs_f64()),
            Some(error) => eprintln!("-------- {name}: FAILED after {:.1} s: {error}", took.as_secs_f64()),
        }
        self.sections.push((name, took, error));
    }

    fn finish(self) -> Result<()> {
        eprintln!("\n======== summary");
        let mut failed = Vec::new();
        let mut total = Duration::ZERO;
        for (name, took, error) in &self.sections {
            total += *took;
            let result = if error.is_none() { "ok" } else { "FAILED" };
            eprintln!("{result:>6}  {:>7.1} s  {name}", took.as_secs_f64());
            if let Some(error) = error {
                eprintln!("                   {}", error.lines().next().unwrap_or_default());
                failed.push(*name);
            }
        }
        eprintln!("        {:>7.1} s  in all", total.as_secs_f64());
        if failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", failed.join(", "))
    }
}
