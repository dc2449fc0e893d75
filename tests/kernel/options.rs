//! Options that change what the stacks show, and the other commands.

use anyhow::{Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::workload::Workload;

use crate::{HZ, check_paths, measure};

#[test]
fn without_kernel_frames() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("syscalls", &[])?;
    let (folded, _) = measure(Descry::profile(HZ, 2)?.pid(workload.pid()).args(["--kernel=no"]))?;
    check_paths(&folded, &[&["_start", "..", "main", "read_blocks", "read_block", "*read"]], 0.97)?;
    ensure!(
        !folded.stacks.iter().any(|stack| stack.frames.iter().any(|frame| frame.kernel)),
        "kernel frames"
    );
    Ok(())
}

#[test]
fn without_inlined_frames() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("deep", &[])?;
    let (folded, _) = measure(Descry::profile(HZ, 2)?.pid(workload.pid()).args(["--inlines=no"]))?;
    let inlined = folded.filter(|stack| stack.frames.iter().any(|frame| frame.inlined));
    ensure!(inlined.total() == 0, "inlined frames:\n{}", inlined.heaviest(3));
    ensure!(folded.self_of("bottom") > 0.9, "the function that contains them:\n{}", folded.heaviest(3));
    Ok(())
}

#[test]
fn the_slowest_and_the_fastest_rate() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("split", &[])?;
    let slow = Descry::profile(1, 5)?.pid(workload.pid()).succeed()?.stats()?.samples;
    ensure!((1..=7).contains(&slow), "{slow} samples at 1 Hz in 5 s");
    let (folded, _) = measure(Descry::profile(4999, 2)?.pid(workload.pid()))?;
    ensure!(folded.total() > 4000, "{} samples at 4999 Hz in 2 s", folded.total());
    Ok(())
}

#[test]
fn doctor_tells_of_this_machine() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let text = Descry::new("doctor")?.succeed()?;
    ensure!(!text.stdout.is_empty(), "doctor says nothing");
    let json = Descry::new("doctor")?.args(["--format", "json"]).succeed()?;
    let report: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    ensure!(report["kernel"].is_string(), "no kernel: {report}");
    ensure!(report["rights"].is_array(), "no rights: {report}");
    let hooks = report["hooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(!hooks.is_empty(), "no hooks: {report}");
    for hook in hooks {
        for field in ["name", "needed_for", "without_it", "remedy"] {
            ensure!(hook.get(field).is_some(), "no {field}: {hook}");
        }
        ensure!(hook["available"].is_boolean(), "not available or not: {hook}");
    }
    Ok(())
}
