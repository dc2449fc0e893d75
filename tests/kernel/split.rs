//! Shares of CPU time, within 2 points at 999 Hz over 10 s.

use anyhow::{Context, Result};
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::workload::Workload;

use crate::{HZ, check_paths, check_share, check_whole, measure, measure_whole};

const MARGIN: f64 = 0.02;

#[test]
fn three_functions_of_c() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("split", &[])?;
    let folded = measure_whole(workload.pid(), 10)?;
    for (name, expected) in [("sixty", 0.6), ("thirty", 0.3), ("ten", 0.1)] {
        check_share(&folded, name, folded.total_of(name), expected, MARGIN)?;
    }
    check_paths(&folded, &[&["_start", "..", "main", "cycle", "..", "burn_until_[i]", ".."]], 0.99)
}

#[test]
fn three_functions_of_rust_in_two_threads() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::rust("burner", &["--threads", "2"])?;
    let folded = measure_whole(workload.pid(), 10)?;
    for (name, expected) in [("*::checkout", 0.6), ("*::search", 0.3), ("*::render", 0.1)] {
        check_share(&folded, name, folded.total_of(name), expected, MARGIN)?;
    }
    check_paths(
        &folded,
        &[
            &["..", "*::checkout", "*::price_order", "*price_line_[i]", "*::mix", ".."],
            &["..", "*::search", "*::rank", "*score_[i]", "*::mix", ".."],
            &["..", "*::render", "*::template", "*::mix", ".."],
        ],
        0.99,
    )?;
    let deep = folded.share(|stack| stack.frames.len() >= 20);
    check_share(&folded, "stacks of 20 frames or more", deep, 1.0, 0.01)
}

#[test]
fn threads_by_name() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("pool", &[])?;
    let (mut folded, stats) = measure(Descry::profile(HZ, 10)?.pid(workload.pid()).args(["--per-thread"]))?;
    for (name, expected) in [("pool-fifty", 0.5), ("pool-thirty", 0.3), ("pool-twenty", 0.2)] {
        let share = folded.share(|stack| stack.frames.first().is_some_and(|frame| frame.name == name));
        check_share(&folded, name, share, expected, MARGIN)?;
    }
    for stack in &mut folded.stacks {
        let frames = stack.frames.get(1..).context("a stack without a thread")?;
        stack.frames = frames.to_vec();
    }
    check_whole(&folded, &stats)?;
    let work: &[&str] = &["..", "worker", "job", "burn_until_[i]", ".."];
    check_paths(&folded, &[work], 0.95)?;
    // What it costs to wait for each other between two jobs is the machine's.
    check_paths(
        &folded,
        &[
            work,
            &["..", "worker", "*pthread_barrier_wait", ".."],
            &["..", "main", "*pthread_barrier_wait", ".."],
        ],
        0.98,
    )
}

#[test]
fn the_number_of_samples_is_the_cpu_time() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("split", &[])?;
    let cpu_time = || -> Result<u64> {
        let path = format!("/proc/{}/schedstat", workload.pid());
        let text = std::fs::read_to_string(path)?;
        Ok(text.split(' ').next().unwrap_or_default().parse()?)
    };
    let mut descry = Descry::profile(HZ, 60)?.pid(workload.pid()).spawn()?;
    descry.measuring()?;
    let before = cpu_time()?;
    std::thread::sleep(std::time::Duration::from_secs(5));
    descry.signal(nix::sys::signal::Signal::SIGINT)?;
    let used = cpu_time()? - before;
    let outcome = descry.wait()?;
    let sampled = outcome.stats()?.samples as f64 / f64::from(HZ) * 1e9;
    // The first event may be there some time before the last one, and a virtual machine's timer skips what it lost.
    check_share(&outcome.folded()?, "sampled time to CPU time", sampled / used as f64, 1.0, 0.1)
}
