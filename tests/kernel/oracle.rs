//! Sampled stacks of a program that stands at a known point equal gdb's.

use anyhow::{Result, ensure};
use descry_tests::debugger::{DebuggerFrame, backtrace};
use descry_tests::folded::Frame;
use descry_tests::machine;
use descry_tests::workload::Workload;

use crate::measure_whole;

#[test]
fn the_stack_is_gdbs() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("stopped", &[])?;
    let mut expected = backtrace(workload.pid())?;
    expected.reverse();
    let folded = measure_whole(workload.pid(), 2)?;
    // Samples in the kernel's timer interrupt have the same user frames below.
    for stack in &folded.stacks {
        let frames: Vec<&Frame> = stack.frames.iter().filter(|frame| !frame.kernel).collect();
        let same = frames.len() == expected.len()
            && frames.iter().zip(&expected).all(|(frame, expected)| is_same(frame, expected));
        ensure!(same, "descry has\n{}\ngdb has\n{expected:#?}", stack.text().replace(';', "\n"));
    }
    Ok(())
}

/// A C library without symbols has no names for gdb either; one with symbols has several for one function.
fn is_same(frame: &Frame, expected: &DebuggerFrame) -> bool {
    let Some(name) = &expected.name else { return frame.unknown() };
    let plain =
        |name: &str| name.trim_start_matches("__GI_").trim_matches('_').trim_end_matches("_impl").to_owned();
    frame.inlined == expected.inlined && plain(&frame.name) == plain(name)
}
