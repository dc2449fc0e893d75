//! Targets in containers, and descry in one.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_tests::compile;
use descry_tests::descry::{Descry, binary};
use descry_tests::folded::Folded;
use descry_tests::machine;
use descry_tests::workload::{Workload, children, eventually};

use crate::{HZ, check_paths, check_whole, measure, measure_whole};

const SPLIT: &[&[&str]] = &[&["_start", "..", "main", "cycle", "..", "burn_until_[i]", ".."]];

/// `unshare --pid --fork --mount-proc` and what follows.
fn in_pid_namespace<'a>(rest: &[&'a OsStr]) -> Result<Vec<&'a OsStr>> {
    let unshare = machine::tool("unshare")?.as_os_str();
    let options = ["--pid", "--fork", "--mount-proc", "--kill-child"].map(OsStr::new);
    Ok([&[unshare], &options[..], rest].concat())
}

fn command(words: &[&OsStr]) -> Command {
    let mut command = Command::new(words.first().copied().unwrap_or_default());
    command.args(words.get(1..).unwrap_or_default());
    command
}

#[test]
fn a_target_in_a_pid_namespace() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let split = compile::native("split")?;
    let workload = Workload::spawn_ready(command(&in_pid_namespace(&[split.as_os_str()])?))?;
    let folded = measure_whole(workload.first_child()?, 2)?;
    check_paths(&folded, SPLIT, 0.99)
}

/// Runs a shell script in a namespace; `$0` is descry, `$1` a workload. The script must make descry's output its own.
fn in_namespace(script: &str) -> Result<(Folded, descry_tests::descry::Stats)> {
    let (descry, split) = (binary()?, compile::native("split")?);
    let words = in_pid_namespace(&[
        "sh".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
        descry.as_os_str(),
        split.as_os_str(),
    ])?;
    measure(Descry::through(&words))
}

#[test]
fn descry_in_a_pid_namespace() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    // The process ids inside are small numbers, which are those of others outside.
    let (folded, stats) = in_namespace(
        "\"$1\" 30 >/dev/null & sleep 0.5; \"$0\" profile -p $! -F 999 -d 2s --format folded --stats json",
    )?;
    check_whole(&folded, &stats)?;
    check_paths(&folded, SPLIT, 0.99)
}

#[test]
fn descry_in_a_pid_namespace_and_its_target_in_a_nested_one() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let (folded, stats) = in_namespace(
        "unshare --pid --fork --mount-proc --kill-child \"$1\" 30 >/dev/null & sleep 0.5; \
         target=$(cat /proc/$!/task/$!/children); \
         \"$0\" profile -p $target -F 999 -d 2s --format folded --stats json",
    )?;
    check_whole(&folded, &stats)?;
    check_paths(&folded, SPLIT, 0.99)
}

#[test]
fn all_of_a_pid_namespace() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _outside = Workload::native("deep", &[])?;
    let (folded, _) = in_namespace(
        "\"$1\" 30 >/dev/null & sleep 0.5; \"$0\" profile -a -F 999 -d 2s --format folded --stats json",
    )?;
    ensure!(folded.of("split").total_of("cycle") > 0.95, "split:\n{}", folded.heaviest(10));
    ensure!(folded.of("deep").total() == 0, "a process outside:\n{}", folded.of("deep").heaviest(10));
    Ok(())
}

#[test]
fn a_file_that_only_the_target_sees() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let split = compile::native("split")?;
    let dir = tempfile::tempdir()?;
    let script = "mount -t tmpfs none \"$0\" && cp \"$1\" \"$0/hidden\" && exec \"$0/hidden\"";
    let unshare = machine::tool("unshare")?;
    let words: [&OsStr; 7] = [
        unshare.as_os_str(),
        "--mount".as_ref(),
        "sh".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
        dir.path().as_os_str(),
        split.as_os_str(),
    ];
    let workload = Workload::spawn_ready(command(&words))?;
    ensure!(!dir.path().join("hidden").exists(), "the file is visible from outside");
    let folded = measure_whole(workload.pid(), 2)?;
    check_paths(&folded, SPLIT, 0.99)
}

#[test]
fn processes_that_start_in_a_namespace_are_followed() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let split = compile::native("split")?;
    let words = in_pid_namespace(&[split.as_os_str(), "2".as_ref()])?;
    let (folded, stats) = measure(Descry::profile(HZ, 60)?.args(["--follow", "--"]).args(&words))?;
    ensure!(stats.rooted >= crate::ROOTED, "{} rooted", stats.rooted);
    check_paths(&folded.of("split"), SPLIT, 0.97)
}

#[test]
fn the_shell_of_a_namespace_and_its_children() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let split = compile::native("split")?;
    let words =
        in_pid_namespace(&["sh".as_ref(), "-c".as_ref(), "\"$0\"; true".as_ref(), split.as_os_str()])?;
    let workload = Workload::spawn_ready(command(&words))?;
    let shell = workload.first_child()?;
    let child = eventually("the shell's child", || Ok(children(shell)?.first().copied()));
    child.context("no child")?;
    let (folded, stats) = measure(Descry::profile(HZ, 2)?.pid(shell).args(["--follow"]))?;
    check_whole(&folded, &stats)?;
    check_paths(&folded, SPLIT, 0.99)
}
