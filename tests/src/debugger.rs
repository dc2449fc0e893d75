//! gdb, as an oracle for stacks.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::machine;

/// One frame as gdb sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebuggerFrame {
    /// Runtime address: of the next instruction, or for callers the return address.
    pub pc: u64,
    /// Function, where known.
    pub name: Option<String>,
    /// Whether the compiler put it into its caller.
    pub inlined: bool,
}

/// Prints `pc name inlined` for each frame, leaf first, down to the root. Frames that gdb infers for calls which were made
/// as jumps are left out: nothing of them is on the stack.
const SCRIPT: &str = "python
frame = gdb.newest_frame()
while frame is not None:
    if frame.type() != gdb.TAILCALL_FRAME:
        print('frame', frame.pc(), frame.name() or '?', frame.type() == gdb.INLINE_FRAME)
    frame = frame.older()
end
";

/// The stack of the first thread of a process, leaf first. The process is stopped meanwhile and goes on afterwards.
///
/// # Errors
/// When gdb is missing or cannot attach.
pub fn backtrace(pid: u32) -> Result<Vec<DebuggerFrame>> {
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("script.gdb");
    std::fs::write(&script, SCRIPT)?;
    let mut command = Command::new(machine::tool("gdb")?);
    command.args(["-nx", "-batch", "-p", &pid.to_string()]);
    command.args(["-ex", "set backtrace past-main on", "-x"]).arg(&script);
    // Looking up debug files on the network would take long and prove nothing.
    command.env_remove("DEBUGINFOD_URLS");
    let output = command.output().context("cannot run gdb")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut frames = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("frame ")) {
        let (pc, rest) = line.split_once(' ').with_context(|| format!("gdb said {line:?}"))?;
        let (name, inlined) = rest.rsplit_once(' ').with_context(|| format!("gdb said {line:?}"))?;
        frames.push(DebuggerFrame {
            pc: pc.parse().with_context(|| format!("gdb said {line:?}"))?,
            name: (name != "?").then(|| name.to_owned()),
            inlined: inlined == "True",
        });
    }
    ensure!(!frames.is_empty(), "gdb gave no stack:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(frames)
}
