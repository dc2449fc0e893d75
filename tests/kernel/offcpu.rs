//! Time off the CPU: as long as the program says itself, for the right reason, on the right stack; and elapsed time.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::{Descry, Outcome};
use descry_tests::folded::{Folded, Stack};
use descry_tests::server::Nginx;
use descry_tests::workload::Workload;
use descry_tests::{compile, machine};

use crate::HZ;

/// How far a time may be from the truth (0 to 1).
const MARGIN: f64 = 0.01;
/// Reason of time that a thread was ready to run in.
const RUN_QUEUE: &str = "[run queue]";

/// The functions of the workload `waits`, the reason of each, and a frame of the kernel that is on its stacks.
const WAITS: [(&str, &str, &str); 8] = [
    ("sleeps", "[sleep]", "do_nanosleep_[k]"),
    ("locks", "[lock]", "*futex_*_[k]"),
    ("reads_pipe", "[pipe]", "*pipe_read_[k]"),
    ("reads_socket", "[network read]", "unix_stream_*_[k]"),
    ("polls", "[network poll]", "do_sys_poll_[k]"),
    ("accepts", "[network accept]", "inet_csk_accept_[k]"),
    ("waits_for_child", "[child]", "do_wait_[k]"),
    ("syncs", "[disk]", "*schedule*_[k]"),
];

/// Nanoseconds that a function took, and that its thread was on a CPU meanwhile.
type Clocks = BTreeMap<String, (f64, f64)>;

fn clocks(path: &Path) -> Result<Clocks> {
    let text = std::fs::read_to_string(path).context("the workload left no results")?;
    let line = |line: &str| {
        let mut words = line.split(' ');
        let mut word = || words.next().context("a word is missing");
        Ok((word()?.to_owned(), (word()?.parse()?, word()?.parse()?)))
    };
    text.lines().map(line).collect()
}

fn is_at(stack: &Stack, reason: &str) -> bool {
    stack.frames.last().is_some_and(|frame| frame.is(reason))
}

/// A time (both in ns) is what it should be, within `margin` of that.
fn check_time(what: &str, found: f64, expected: f64, margin: f64, of: &Folded) -> Result<()> {
    let difference = (found - expected).abs() / expected;
    ensure!(
        difference <= margin,
        "{what}: {:.3} ms instead of {:.3} ms, of\n{}",
        found / 1e6,
        expected / 1e6,
        of.heaviest(20)
    );
    Ok(())
}

/// What a thread did in `function` itself, not in the threads and children that it waits for.
fn of_function(folded: &Folded, function: &str) -> Folded {
    folded.filter(|stack| stack.has(function) && (function == "sleeps" || !stack.has("pause_a_while")))
}

/// Runs the workload, on one CPU or on any, and returns which of its waits are not as its own clocks say, and how.
fn wrong_waits(cpu: Option<&str>) -> Result<BTreeMap<&'static str, anyhow::Error>> {
    let dir = tempfile::tempdir_in(machine::work_dir()?)?;
    let results = dir.path().join("results");
    let mut command = vec![compile::native("waits")?.into_os_string(), results.clone().into_os_string()];
    command.extend(cpu.map(Into::into));
    let descry = Descry::profile(HZ, 60)?.args(["--mode", "off-cpu", "--"]);
    let outcome = descry.args(command).succeed()?;
    let folded = outcome.folded()?;
    check_nothing_lost(&outcome)?;
    let clocks = clocks(&results)?;
    let wrong = WAITS.iter().filter_map(|wait| Some((wait.0, check_wait(wait, &folded, &clocks).err()?)));
    Ok(wrong.collect())
}

/// Runs the workload until each of its waits was right, at most `RUNS` times: what a hypervisor takes from a CPU is in the
/// elapsed time of a program, but not in its CPU time, so that on a shared machine its own clocks can be wrong.
fn check_waits(cpu: Option<&str>) -> Result<()> {
    const RUNS: u32 = 6;
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let mut wrong = wrong_waits(cpu)?;
    for _ in 1..RUNS {
        if wrong.is_empty() {
            break;
        }
        let again = wrong_waits(cpu)?;
        wrong.retain(|function, _| again.contains_key(function));
    }
    wrong.into_values().next().map_or(Ok(()), Err)
}

fn check_wait(wait: &(&str, &str, &str), folded: &Folded, clocks: &Clocks) -> Result<()> {
    let (function, reason, kernel_frame) = *wait;
    let own = of_function(folded, function);
    let (elapsed, on_cpu) = clocks.get(function).context("a function is missing")?;
    let off_cpu = elapsed - on_cpu;
    let total = own.total() as f64 * 1e3;
    if function == "syncs" {
        // On a fast disk a sync is many waits of some 100 us, and what it takes a task to get its CPU is a tenth of each.
        // The kernel's clock takes that for CPU time where the CPU was idle: it does not read the time again between the
        // wake-up and the switch (`rq_clock_skip_update`, kernel/sched/core.c).
        let run_queue = own.filter(|stack| is_at(stack, RUN_QUEUE)).total() as f64 * 1e3;
        let nearest = off_cpu.clamp(total - run_queue, total);
        check_time(function, nearest, off_cpu, MARGIN, &own)?;
    } else {
        check_time(function, total, off_cpu, MARGIN, &own)?;
    }
    let other = own.filter(|stack| !is_at(stack, reason) && !is_at(stack, RUN_QUEUE));
    ensure!(
        other.total() as f64 <= own.total() as f64 * MARGIN,
        "{function} waits for other than {reason}:\n{}",
        other.heaviest(5)
    );
    let waits = own.filter(|stack| is_at(stack, reason));
    let path = ["_start", "..", "main", "..", function, "..", kernel_frame, ".."];
    let wrong = waits.filter(|stack| !stack.matches(&path));
    ensure!(
        waits.total() > 0 && wrong.total() as f64 <= waits.total() as f64 * MARGIN,
        "{function} has other stacks:\n{}",
        wrong.heaviest(5)
    );
    Ok(())
}

/// Nothing was lost but stacks of programs that were new.
fn check_nothing_lost(outcome: &Outcome) -> Result<()> {
    let stats = outcome.stats()?;
    let kept = ["ring_full_copy", "stack_copy_failed", "copy_too_soon", "wait_without_stack"];
    let lost: u64 =
        stats.lost.iter().filter(|(reason, _)| !kept.contains(&&***reason)).map(|(_, count)| count).sum();
    ensure!(lost == 0, "lost: {:?}", stats.lost);
    Ok(())
}

#[test]
fn waits_are_as_long_as_the_program_says() -> Result<()> {
    check_waits(None)
}

#[test]
fn reasons_are_known_where_the_kernel_hides_its_names() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir_in(machine::work_dir()?)?;
    let (folded, results) = (dir.path().join("waits.folded"), dir.path().join("results"));
    // In a mount namespace of its own, so that nobody else misses the names.
    let hide = "mount --bind /dev/null /proc/kallsyms && exec \"$@\"";
    let unshare = machine::tool("unshare")?.as_os_str();
    let words = ["--mount", "sh", "-c", hide, "sh"].map(AsRef::as_ref);
    let binary = descry_tests::descry::binary()?;
    let descry = Descry::through(&[&[unshare], &words[..], &[binary.as_os_str()]].concat());
    let descry = descry.args(["profile", "--mode", "off-cpu", "-d", "60s"]).output(&folded).args(["--"]);
    descry.args([compile::native("waits")?, results]).succeed()?;
    let folded = Folded::parse(&std::fs::read_to_string(&folded)?)?;
    for (function, reason, _) in WAITS.iter().filter(|(function, ..)| *function != "waits_for_child") {
        let own = of_function(&folded, function).filter(|stack| !is_at(stack, RUN_QUEUE));
        let right = own.share(|stack| is_at(stack, reason));
        ensure!(right > 0.98, "{function} waits for other than {reason}:\n{}", own.heaviest(5));
    }
    Ok(())
}

#[test]
fn waits_on_one_cpu_are_as_long_as_the_program_says() -> Result<()> {
    check_waits(Some("0"))
}

#[test]
fn a_waker_stands_above_the_one_that_it_woke() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("mixed", &[])?;
    let descry = Descry::profile(HZ, 2)?.args(["--mode", "off-cpu", "--wakers"]).pid(workload.pid());
    let folded = descry.succeed()?.folded()?;
    let pongs = ["*clone3", "..", "pongs", "..", "__schedule_[k]", "..", "[pipe]"];
    let waits = folded.filter(|stack| stack.matches(&pongs));
    let path: &[&str] = &[
        "*clone3",
        "..",
        "pongs",
        "..",
        "__schedule_[k]",
        "[woken by mixed]",
        "try_to_wake_up_[k]",
        "..",
        "*pipe_write_[k]",
        "..",
        "pings",
        "..",
        "*clone3",
        "[pipe]",
    ];
    let right = waits.share(|stack| stack.matches(path));
    ensure!(right > 0.98, "{right} of the waits are woken so; the others:\n{}", waits.heaviest(10));
    Ok(())
}

/// Every thread's times make up the time that was measured, whatever it did.
fn check_elapsed(pid: u32, threads: &[&str]) -> Result<Folded> {
    const SECONDS: u32 = 4;
    let outcome =
        Descry::profile(HZ, SECONDS)?.args(["--mode", "wall", "--per-thread"]).pid(pid).succeed()?;
    let folded = outcome.folded()?;
    check_nothing_lost(&outcome)?;
    for name in threads {
        let own = folded.filter(|stack| stack.frames.first().is_some_and(|frame| frame.is(name)));
        check_time(name, own.total() as f64 * 1e3, f64::from(SECONDS) * 1e9, MARGIN, &own)?;
    }
    Ok(folded)
}

#[test]
fn the_times_of_every_thread_make_up_elapsed_time() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("mixed", &[])?;
    let threads = ["mixed", "burns1", "burns2", "burns3", "naps", "sleeps", "pings", "pongs"];
    let folded = check_elapsed(workload.pid(), &threads)?;
    // It was blocked before the measurement began, and still is.
    let sleeps = folded.filter(|stack| stack.frames.first().is_some_and(|frame| frame.is("sleeps")));
    let path = ["sleeps", "*clone3", "..", "sleeps", "*pause", "..", "[sleep]"];
    ensure!(
        sleeps.share(|stack| stack.matches(&path)) > 0.99,
        "the sleeper's stack:\n{}",
        sleeps.heaviest(5)
    );
    Ok(())
}

#[test]
fn the_times_of_nginx_under_load_make_up_elapsed_time() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let nginx = Nginx::start()?;
    check_elapsed(nginx.worker()?, &["nginx"])?;
    Ok(())
}

#[test]
fn the_smallest_are_left_out_and_said_to_be() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("mixed", &[])?;
    let descry = Descry::profile(HZ, 1)?.args(["--mode", "off-cpu", "--min", "100ms"]).pid(workload.pid());
    let outcome = descry.succeed()?;
    let folded = outcome.folded()?;
    ensure!(folded.total() > 0, "nothing is left");
    let small = folded.filter(|stack| stack.count < 100_000);
    ensure!(small.total() == 0, "below 100 ms:\n{}", small.heaviest(5));
    ensure!(outcome.stderr.contains("--min leaves out "), "nothing is said of it:\n{}", outcome.stderr);
    Ok(())
}

/// Seconds that strace says the thread `tid` spent in a system call: `TID NAME(...) = 0 <0.030123>`, or in two lines of
/// which the second has `<... NAME resumed>`.
fn by_strace(text: &str, tid: &str, name: &str) -> f64 {
    let (whole, resumed) = (format!("{name}("), format!("<... {name} resumed>"));
    let time = |line: &str| line.rsplit_once('<')?.1.trim_end().strip_suffix('>')?.parse::<f64>().ok();
    let lines = text.lines().filter_map(|line| line.split_once(' ')).filter(|(own, _)| *own == tid);
    let calls = lines.map(|(_, call)| call.trim_start());
    calls.filter(|call| call.starts_with(&whole) || call.starts_with(&resumed)).filter_map(time).sum()
}

#[test]
fn strace_says_the_same() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir_in(machine::work_dir()?)?;
    let (results, trace) = (dir.path().join("results"), dir.path().join("trace"));
    let mut command = Command::new(machine::tool("strace")?);
    command.args(["-f", "-T", "-e", "trace=read,recvfrom,poll,ppoll,accept,wait4", "-o"]).arg(&trace);
    command.arg(compile::native("waits")?).arg(&results);
    let mut traced = vec![command.get_program().to_owned()];
    traced.extend(command.get_args().map(ToOwned::to_owned));
    let descry = Descry::profile(HZ, 60)?.args(["--mode", "off-cpu", "--"]).args(traced);
    let folded = descry.succeed()?.folded()?;
    let text = std::fs::read_to_string(&trace)?;
    let (tid, _) = text.split_once(' ').context("strace saw nothing")?;
    let calls = [
        ("reads_pipe", "read", "[pipe]"),
        ("reads_socket", "recvfrom", "[network read]"),
        ("polls", "poll", "[network poll]"),
        ("accepts", "accept", "[network accept]"),
        ("waits_for_child", "wait4", "[child]"),
    ];
    for (function, call, reason) in calls {
        let own = of_function(&folded, function);
        let waits = own.filter(|stack| is_at(stack, reason));
        // recvfrom of `polls` does not wait; what strace itself costs is in its times.
        check_time(function, waits.total() as f64 * 1e3, by_strace(&text, tid, call) * 1e9, 0.03, &own)?;
    }
    Ok(())
}
