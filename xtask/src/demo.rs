//! Shows what descry does, on a fresh Debian machine, with one command.

mod agent;
mod summary;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;
use prost::Message;

use crate::command::{self, NotAllowed, Running, need_root, step};
use crate::install::{self, COMPILER};
use crate::products;
use crate::repo;

/// The options of `demo`.
#[derive(clap::Args)]
pub struct Args {
    /// How long each measurement takes, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Where the files go.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Builds descry, a worker and a shop, measures the two in every way, and lets the agent watch the shop.
pub fn run(args: &Args) -> Result<()> {
    need_root("to load programs into the kernel")?;
    install::ensure(COMPILER, "the demonstration")?;
    let descry = products::descry()?;
    let burner = products::burner(false)?;
    let shop = products::shop()?;
    let directory = match &args.out {
        Some(directory) => std::env::current_dir()?.join(directory),
        None => repo::target().join("demo"),
    };
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;

    step(
        "starting the worker: two threads, no frame pointers, CPU time 60/30/10 in checkout, search and render",
    );
    let mut worker = Running::start(&burner, ["--threads", "2"], |command| {
        command.stdout(Stdio::null());
    })?;
    let mut profile = |output: Option<&Path>| -> Result<()> {
        worker.must_run()?;
        let mut command = Command::new(&descry);
        command.args(["profile", "-p", &worker.pid().to_string(), "-d", &format!("{}s", args.seconds)]);
        if let Some(output) = output {
            command.arg("-o").arg(output);
        }
        measure(&mut command)
    };

    profile(None)?;
    let svg = directory.join("flamegraph.svg");
    profile(Some(&svg))?;
    let otlp = directory.join("profile.otlp");
    profile(Some(&otlp))?;
    drop(worker);

    println!("\nThe flame graph, for a browser:  {}", svg.display());
    println!("The profile as OTLP:             {}", otlp.display());
    let bytes = fs::read(&otlp).with_context(|| format!("cannot read {}", otlp.display()))?;
    let data = ProfilesData::decode(bytes.as_slice())
        .with_context(|| format!("{} is not an OTLP profile", otlp.display()))?;
    print!("{}", summary::of(&data, bytes.len()));
    visit(&descry, &shop, args.seconds)?;
    agent::run(&descry, &shop, &directory, args.seconds)
}

/// Measures the shop: its waits, system calls, functions and requests.
fn visit(descry: &Path, shop: &Path, seconds: u32) -> Result<()> {
    step(
        "starting the shop: a server and its customer, which wait for a lock, a disk, a timer and each other",
    );
    let mut shop = Running::start(shop, [""; 0], |command| {
        command.stdout(Stdio::null());
    })?;
    let pid = shop.pid().to_string();
    let duration = format!("{seconds}s");
    for words in [
        // Where its threads wait, and why.
        &["profile", "--mode", "off-cpu", "--per-thread", "--inlines=no"][..],
        // What it asks of the kernel; calls of 100 ms and more one by one.
        &["syscalls", "--slower-than", "100ms"],
        // A span a call of these functions.
        &[
            "trace",
            "-f",
            "shop::price",
            "-f",
            "shop::take_from_stock",
            "-f",
            "shop::write_journal",
            "--max-rate",
            "20",
        ],
        // What its customer asks of it, and it of itself.
        &["requests"],
    ] {
        shop.must_run()?;
        let mut command = Command::new(descry);
        command.args(words).args(["-p", &pid, "-d", &duration]);
        measure(&mut command)?;
    }
    Ok(())
}

/// Runs descry as shown; its exit code 3 (rights or kernel) stays a 3.
fn measure(descry: &mut Command) -> Result<()> {
    step(command::line(descry));
    let status = descry.status().context("cannot start descry")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(3) => {
            Err(NotAllowed("descry cannot measure on this machine; what is missing is above".into()).into())
        }
        _ => bail!("descry failed: {status}"),
    }
}
