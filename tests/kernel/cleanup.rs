//! Nothing stays in the kernel, however descry ends.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::{Descry, Running};
use descry_tests::machine;
use descry_tests::workload::{Workload, eventually};
use nix::sys::signal::Signal;

use crate::HZ;

/// The ids of programs and maps that a process holds, as bpftool takes them.
pub fn held(pid: u32) -> Result<BTreeSet<(&'static str, String)>> {
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A file that was closed meanwhile holds nothing.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        for line in text.lines() {
            let Some((field, value)) = line.split_once(':') else { continue };
            let kind = match field {
                "prog_id" => "prog",
                "map_id" => "map",
                "link_id" => "link",
                _ => continue,
            };
            ids.insert((kind, value.trim().to_owned()));
        }
    }
    Ok(ids)
}

/// Whether the kernel has it.
pub fn exists(kind: &str, id: &str) -> Result<bool> {
    let mut command = Command::new(machine::tool("bpftool")?);
    let output = command.args([kind, "show", "id", id]).output().context("cannot run bpftool")?;
    Ok(output.status.success())
}

/// Ends descry in some way while it measures, and checks that what it held is gone.
fn check(options: &[&str], end: impl FnOnce(&Running) -> Result<()>) -> Result<()> {
    check_held(Descry::profile(HZ, 100)?.args(options), end)
}

/// The same of any command, which measures a process of its own.
fn check_held(descry: Descry, end: impl FnOnce(&Running) -> Result<()>) -> Result<()> {
    let workload = Workload::native("split", &[])?;
    let mut descry = descry.pid(workload.pid()).spawn()?;
    descry.measuring()?;
    let held = eventually("programs that are attached", || {
        let held = held(descry.pid())?;
        let has = |wanted: &str| held.iter().any(|(kind, _)| *kind == wanted);
        Ok((has("prog") && has("link")).then_some(held))
    })?;
    for (kind, id) in &held {
        ensure!(exists(kind, id)?, "bpftool does not see {kind} {id}");
    }
    let pinned_before = pinned()?;
    end(&descry)?;
    descry.wait()?;
    // The kernel frees them after a grace period.
    for (kind, id) in &held {
        eventually(&format!("{kind} {id} to be gone"), || Ok((!exists(kind, id)?).then_some(())))?;
    }
    ensure!(pinned()? == pinned_before, "something new is pinned in /sys/fs/bpf");
    Ok(())
}

fn pinned() -> Result<usize> {
    Ok(std::fs::read_dir("/sys/fs/bpf").map_or(0, Iterator::count))
}

#[test]
fn after_an_interrupt() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    check(&[], |descry| descry.signal(Signal::SIGINT))
}

#[test]
fn after_kill() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    check(&[], |descry| descry.signal(Signal::SIGKILL))
}

#[test]
fn after_kill_with_time_off_the_cpu() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    check(&["--mode", "wall", "--wakers"], |descry| descry.signal(Signal::SIGKILL))
}

#[test]
fn after_kill_with_system_calls() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let syscalls = Descry::new("syscalls")?.args(["--slower-than", "1ms", "-d", "100s"]);
    check_held(syscalls, |descry| descry.signal(Signal::SIGKILL))
}

#[test]
fn after_kill_with_traced_functions() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let trace = Descry::new("trace")?.args(["-f", "libc.so*:*", "-d", "100s"]);
    check_held(trace, |descry| descry.signal(Signal::SIGKILL))
}
