//! descry on a real kernel, watching programs whose truth is known. See the crate's documentation for what it needs.
//!
//! Every test takes the machine for itself, since shares of CPU time are right only if nothing else of ours runs.
#![forbid(unsafe_code)]

mod agent;
mod bad_input;
mod cleanup;
mod collector;
mod connections;
mod floods;
mod formats;
mod hostile;
mod lifecycle;
mod namespaces;
mod offcpu;
mod older;
mod options;
mod oracle;
mod otlp;
mod readers;
mod real;
mod requests;
mod servers;
mod services;
mod sockets;
mod split;
mod stacks;
mod statements;
mod syscalls;
mod targets;
mod tcp;
mod templates;
mod tls;
mod trace;
mod trace_limits;

use anyhow::{Result, ensure};
use descry_tests::descry::{Descry, Stats};
use descry_tests::folded::{Folded, Stack};

/// The rate at which shares and roots are asserted: no divisor of a timer's.
const HZ: u32 = 999;

/// What must reach its root, at least (0 to 1).
const ROOTED: f64 = 0.995;

/// Root frames of programs and of threads: names of the C libraries, and libc's code where its symbols are not installed.
const ROOTS: &[&str] = &["_start", "*clone3", "*clone", "[libc.so.6+*"];

/// Measures one process and checks what is true of every measurement: samples were taken, none was lost, the counts add
/// up, and the stacks are whole.
fn measure_whole(pid: u32, seconds: u32) -> Result<Folded> {
    let (folded, stats) = measure(Descry::profile(HZ, seconds)?.pid(pid))?;
    check_whole(&folded, &stats)?;
    Ok(folded)
}

/// Runs a profile and checks that samples were taken, none was lost, and the counts add up.
fn measure(descry: Descry) -> Result<(Folded, Stats)> {
    let outcome = descry.succeed()?;
    let (folded, stats) = (outcome.folded()?, outcome.stats()?);
    ensure!(stats.samples > 0, "no samples:\n{}", outcome.stderr);
    // A sample whose stack could not be copied is there, as one that is cut.
    let kept = ["ring_full_copy", "stack_copy_failed"];
    let lost: u64 =
        stats.lost.iter().filter(|(reason, _)| !kept.contains(&&***reason)).map(|(_, count)| count).sum();
    ensure!(lost == 0, "lost: {:?}", stats.lost);
    ensure!(
        folded.total() == stats.samples,
        "{} samples were taken, {} are in the output",
        stats.samples,
        folded.total()
    );
    Ok((folded, stats))
}

/// At least 99.5 % of the samples reach their root, by descry's own word and by the names of the first frames.
fn check_whole(folded: &Folded, stats: &Stats) -> Result<()> {
    let cut = folded.filter(|stack| stack.truncated);
    ensure!(stats.rooted >= ROOTED, "{} rooted; cut:\n{}", stats.rooted, cut.heaviest(10));
    let rooted = folded.share(is_whole);
    let others = folded.filter(|stack| !is_whole(stack));
    ensure!(rooted >= ROOTED, "{rooted} begin at a root; not:\n{}", others.heaviest(10));
    Ok(())
}

/// Whether the stack begins at a root. That of a stripped program has no name, but libc's part after it has.
fn is_whole(stack: &Stack) -> bool {
    let is = |index: usize, names: &[&str]| {
        stack.frames.get(index).is_some_and(|frame| names.iter().any(|name| frame.is(name)))
    };
    !stack.truncated && (is(0, ROOTS) || is(1, &["*libc_start_main*"]))
}

/// A share is what it should be, within `margin`; all from 0 to 1.
fn check_share(folded: &Folded, what: &str, share: f64, expected: f64, margin: f64) -> Result<()> {
    ensure!(
        (share - expected).abs() <= margin,
        "{what}: {share:.4} instead of {expected} +- {margin}, of\n{}",
        folded.heaviest(15)
    );
    Ok(())
}

/// At least `least` (0 to 1) of the samples have a stack like one of these, from the root to the leaf.
fn check_paths(folded: &Folded, paths: &[&[&str]], least: f64) -> Result<()> {
    let share = folded.share(|stack| paths.iter().any(|path| stack.matches(path)));
    let others = folded.filter(|stack| !paths.iter().any(|path| stack.matches(path)));
    ensure!(
        share >= least,
        "{share:.4} instead of {least} of the stacks are like {paths:?}; the others:\n{}",
        others.heaviest(15)
    );
    Ok(())
}
