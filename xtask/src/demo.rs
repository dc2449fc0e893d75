//! Shows what descry does, on a fresh Debian machine, with one command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development::{ProfilesData, ResourceProfiles};
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

/// Builds descry, a worker and a shop, and measures the two in every way.
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
    print!("{}", summary(&data, bytes.len()));
    visit(&descry, &shop, args.seconds)
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

/// What an OTLP profile holds, in lines for people.
fn summary(data: &ProfilesData, bytes: usize) -> String {
    let mut text = format!("    {bytes} bytes");
    if let Some(dictionary) = &data.dictionary {
        text += &format!(
            ": {} stacks, {} locations, {} functions, {} mappings, {} strings",
            dictionary.stack_table.len(),
            dictionary.location_table.len(),
            dictionary.function_table.len(),
            dictionary.mapping_table.len(),
            dictionary.string_table.len(),
        );
    }
    text.push('\n');
    for resource in &data.resource_profiles {
        text += &resource_summary(resource, data);
    }
    text
}

fn resource_summary(resource: &ResourceProfiles, data: &ProfilesData) -> String {
    let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
    let known: Vec<String> = attributes
        .filter_map(|attribute| {
            let value = match attribute.value.as_ref()?.value.as_ref()? {
                Value::StringValue(value) => value.clone(),
                Value::IntValue(value) => value.to_string(),
                _ => return None,
            };
            let shown = ["service.name", "process.executable.name", "process.pid", "host.name"];
            shown.contains(&attribute.key.as_str()).then(|| format!("{}={value}", attribute.key))
        })
        .collect();
    let mut text = format!("    resource {}\n", known.join(" "));
    for profile in resource.scope_profiles.iter().flat_map(|scope| &scope.profiles) {
        let (kind, unit) = profile.sample_type.as_ref().map_or(("?", "?"), |kind| {
            let name = |index: i32| {
                let strings = data.dictionary.as_ref().map_or(&[][..], |dictionary| &dictionary.string_table);
                usize::try_from(index).ok().and_then(|index| strings.get(index)).map_or("?", String::as_str)
            };
            (name(kind.type_strindex), name(kind.unit_strindex))
        });
        let total: i64 = profile.samples.iter().flat_map(|sample| &sample.values).sum();
        let taken: usize = profile.samples.iter().map(|sample| sample.timestamps_unix_nano.len()).sum();
        text += &format!(
            "      {kind}: {total} {unit} in {} samples ({taken} timestamps) over {:.1} s\n",
            profile.samples.len(),
            profile.duration_nano as f64 / 1e9,
        );
    }
    text
}
