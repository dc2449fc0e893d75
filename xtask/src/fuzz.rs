//! Runs the fuzz targets of `tests/fuzz` with stable Rust.
//!
//! cargo-fuzz wants a nightly compiler for the address sanitizer only; the crates under test forbid unsafe code, so
//! coverage, overflow checks and libFuzzer's limits of time and memory are what finds something in them.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use crate::command::{self, output, step};
use crate::install::{self, FUZZ};
use crate::repo;

const MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// What cargo-fuzz passes, less the sanitizer.
const FLAGS: [&str; 9] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// An input may take this long (seconds) and this much memory (MiB), more is a finding; and be this long (bytes).
const LIMITS: [&str; 4] = ["-timeout=10", "-rss_limit_mb=2048", "-malloc_limit_mb=1024", "-max_len=8192"];

/// The options of `fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// A target of tests/fuzz, or `all`.
    target: String,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs one target, or all.
pub fn run(args: &Args) -> Result<()> {
    if args.target == "all" {
        return all(args.seconds);
    }
    let targets = targets()?;
    if !targets.contains(&args.target) {
        bail!("no fuzz target {}; there are: all, {}", args.target, targets.join(", "));
    }
    let binaries = build()?;
    fuzz(&binaries, &args.target, args.seconds)
}

/// Runs every target for so many seconds each; all run, also after one that found something.
pub fn all(seconds: u32) -> Result<()> {
    let targets = targets()?;
    let binaries = build()?;
    let waiting = Mutex::new(targets.into_iter());
    let found = Mutex::new(Vec::new());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    // One fuzzer a processor: libFuzzer itself has one thread that works.
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next() {
                    if let Err(error) = fuzz(&binaries, &target, seconds) {
                        eprintln!("{error:#}");
                        found.lock().unwrap_or_else(PoisonError::into_inner).push(target);
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    if found.is_empty() {
        return Ok(());
    }
    bail!("findings in {}", found.join(", "))
}

fn targets() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(repo::root().join(MANIFEST))
        .no_deps()
        .exec()
        .with_context(|| format!("cannot read {MANIFEST}"))?;
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    Ok(targets.filter(|target| target.is_bin()).map(|target| target.name.clone()).collect())
}

/// Builds all targets and returns the directory they are in.
fn build() -> Result<PathBuf> {
    install::ensure(FUZZ, "building libFuzzer")?;
    step("building the fuzz targets");
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let target_dir = repo::target().join("fuzz");
    let mut cargo = repo::cargo();
    cargo
        .args(["build", "--quiet", "--release", "--bins", "--manifest-path", MANIFEST])
        // Named, so that build scripts and macros, which have no libFuzzer to call, get no such flags.
        .args(["--target", &host, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    command::run(&mut cargo)?;
    Ok(target_dir.join(host).join("release"))
}

fn fuzz(binaries: &Path, target: &str, seconds: u32) -> Result<()> {
    // libFuzzer adds what it finds to the first directory; the committed corpus stays as it is.
    let grown = repo::target().join("fuzz/corpus").join(target);
    let artifacts = repo::root().join("tests/fuzz/artifacts").join(target);
    for directory in [&grown, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let mut fuzzer = Command::new(binaries.join(target));
    fuzzer.arg(&grown);
    let corpus = repo::root().join("tests/fuzz/corpus").join(target);
    if corpus.is_dir() {
        fuzzer.arg(corpus);
    }
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1"])
        .args(LIMITS);
    let result = fuzzer.output().with_context(|| format!("cannot start the fuzz target {target}"))?;
    let said = String::from_utf8_lossy(&result.stderr);
    if result.status.success() {
        let inputs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        eprintln!("    {target}: {} inputs, no finding", inputs.unwrap_or("?").trim());
        return Ok(());
    }
    let lines: Vec<&str> = said.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(60)) {
        eprintln!("{line}");
    }
    bail!("{target}: a finding ({}); the input is in {}", result.status, repo::shown(&artifacts))
}
