//! `descry syscalls` against programs that know what they called, against strace, and against their own clocks.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_abi::histogram::bucket;
use descry_tests::descry::{Descry, Outcome};
use descry_tests::workload::Workload;
use descry_tests::{compile, machine};
use serde_json::Value;

/// The object that `descry syscalls --format json` wrote, and how it ended.
struct Report {
    json: Value,
    outcome: Outcome,
}

impl Report {
    /// Of a workload that descry starts with these arguments.
    fn of_started(arguments: &[&str], options: &[&str]) -> Result<Self> {
        let program = compile::native("system_calls")?;
        let program = program.to_string_lossy();
        let words = [&["--", &*program, "0"], arguments].concat();
        Self::run(options, &words)
    }

    fn run(options: &[&str], target: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("calls.json");
        let outcome = Descry::new("syscalls")?
            .args(["--stats", "json"])
            .args(options)
            .output(&file)
            .args(target)
            .succeed()?;
        let json = serde_json::from_slice(&std::fs::read(&file)?).context("not one object of JSON")?;
        Ok(Self { json, outcome })
    }

    fn list(&self, name: &str) -> &[Value] {
        self.json[name].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Calls of a name by all processes.
    fn calls(&self, name: &str) -> u64 {
        self.rows(name).map(|row| row["calls"].as_u64().unwrap_or_default()).sum()
    }

    fn rows<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.list("syscalls").iter().filter(move |row| row["name"] == name)
    }

    /// The row of a call that one process made.
    fn row(&self, name: &str) -> Result<&Value> {
        let row = self.list("syscalls").iter().find(|row| row["name"] == name);
        row.with_context(|| format!("no {name} in {:#}", self.json))
    }

    fn slow(&self, name: &str) -> Result<&Value> {
        let slow = self.list("slow");
        slow.iter().find(|call| call["name"] == name).with_context(|| format!("no slow {name}: {slow:#?}"))
    }

    fn lost_nothing(&self) -> Result<()> {
        let lost = self.json["lost"].as_object().context("no object of what was lost")?;
        ensure!(lost.is_empty(), "lost: {lost:?}");
        Ok(())
    }
}

/// Calls and errors by name, as `strace -f -c` counts them.
fn strace(command: &[&str]) -> Result<BTreeMap<String, (u64, u64)>> {
    let table = tempfile::NamedTempFile::new()?;
    let path = table.path().to_string_lossy().into_owned();
    let output = Command::new("strace").args(["-f", "-c", "-o", &path]).args(command).output();
    let output = output.context("strace cannot be run")?;
    ensure!(output.status.success(), "strace failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(table.path())?;
    // Percent, seconds, microseconds a call, calls, errors if there are any, name.
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let calls = words.get(3)?.parse().ok()?;
        let errors = if words.len() == 6 { words[4].parse().ok()? } else { 0 };
        let name = *words.last()?;
        (name != "total").then(|| (name.to_owned(), (calls, errors)))
    });
    Ok(rows.collect())
}

#[test]
fn counts_are_those_of_strace() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let report = Report::of_started(&["count"], &[])?;
    report.lost_nothing()?;
    ensure!(report.calls("getppid") == 1013 && report.calls("getuid") == 50, "{:#}", report.json);

    let program = compile::native("system_calls")?;
    let mut expected = strace(&[&program.to_string_lossy(), "0", "count"])?;
    // descry starts to measure when the program's own execve is done.
    expected.get_mut("execve").context("no execve in strace's table")?.0 -= 1;
    // Results of rt_sigreturn are those of the calls that the signals interrupted.
    expected.get_mut("rt_sigreturn").context("no rt_sigreturn in strace's table")?.1 = 0;
    let mut counted: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in report.list("syscalls") {
        let name = row["name"].as_str().context("a row without a name")?.to_owned();
        let errors = row["errors"].as_object().context("a row without errors")?;
        let errors: u64 = errors.values().filter_map(Value::as_u64).sum();
        let sums = counted.entry(name).or_default();
        sums.0 += row["calls"].as_u64().context("a row without calls")?;
        sums.1 += errors;
    }
    // strace does not count what never returns.
    counted.retain(|_, (calls, _)| *calls > 0);
    ensure!(counted == expected, "counted:\n{counted:#?}\nstrace:\n{expected:#?}");
    Ok(())
}

#[test]
fn errors_waits_and_what_never_returns() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let report = Report::of_started(&["count"], &[])?;
    // The loader of each of the two programs looks for files that are not there, too.
    let missing: u64 = report.rows("openat").filter_map(|row| row["errors"]["ENOENT"].as_u64()).sum();
    ensure!(missing >= 7, "{missing} times ENOENT");
    let failed: u64 = report.rows("read").filter_map(|row| row["errors"]["EBADF"].as_u64()).sum();
    ensure!(failed == 5, "{failed} times EBADF");
    ensure!(report.row("execve")?["errors"]["ENOENT"] == 1, "{:#}", report.row("execve")?);
    ensure!(report.row("rt_sigreturn")?["calls"] == 3, "{:#}", report.row("rt_sigreturn")?);

    let sleeps = report.row("clock_nanosleep")?;
    ensure!(sleeps["calls"] == 20 && sleeps["blocking"] == true, "{sleeps:#}");
    ensure!(sleeps["total_ns"].as_u64() >= Some(20_000_000), "{sleeps:#}");
    ensure!(report.row("write")?["blocking"] == false, "{:#}", report.row("write")?);

    // The child and the program itself.
    let ends: Vec<_> = report.rows("exit_group").collect();
    let never: u64 = ends.iter().filter_map(|row| row["unreturned"].as_u64()).sum();
    ensure!(ends.len() == 2 && never == 2 && report.calls("exit_group") == 0, "{ends:#?}");
    Ok(())
}

#[test]
fn quantiles_are_within_a_bucket_of_the_programs_own() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let report = Report::of_started(&["latency"], &[])?;
    let said = String::from_utf8_lossy(&report.outcome.stdout).into_owned();
    let own: Vec<u64> = said.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    ensure!(own.len() == 3, "the program said {said:?}");
    let row = report.row("nanosleep")?;
    ensure!(row["calls"] == 2000, "{row:#}");
    for (name, own) in ["p50_ns", "p95_ns", "p99_ns"].into_iter().zip(own) {
        let measured = row[name].as_u64().context("no quantile")?;
        let apart = bucket(measured).abs_diff(bucket(own));
        ensure!(apart <= 1, "{name} is {measured}, the program measured {own}: {apart} buckets apart");
    }
    Ok(())
}

/// An argument of a slow call.
fn argument<'a>(call: &'a Value, name: &str) -> Option<&'a str> {
    let arguments = call["arguments"].as_array()?;
    arguments.iter().find(|argument| argument["name"] == name)?["value"].as_str()
}

/// Whether the functions, the caller of the call first, are on the stack in this order.
fn has_stack(call: &Value, functions: &[&str]) -> bool {
    let frames = call["stack"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut frames = frames.iter().filter_map(Value::as_str).map(|frame| frame.split(' ').next());
    functions.iter().all(|function| frames.any(|frame| frame == Some(*function)))
}

#[test]
fn slow_calls_with_arguments_and_stacks() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let fifo = dir.path().join("fifo");
    let report = Report::of_started(&["slow", &dir.path().to_string_lossy()], &["--slower-than", "50ms"])?;
    report.lost_nothing()?;

    let open = report.slow("openat")?;
    let expected = [
        ("dirfd", "AT_FDCWD"),
        ("pathname", &*format!("{:?}", fifo.to_string_lossy())),
        ("flags", "O_RDONLY|O_CLOEXEC"),
    ];
    for (name, value) in expected {
        ensure!(argument(open, name) == Some(value), "{name} is not {value}: {open:#}");
    }
    ensure!(open["duration_ns"].as_u64() >= Some(90_000_000), "{open:#}");
    ensure!(open["result"].as_u64() >= Some(3) && open["error"].is_null(), "{open:#}");
    ensure!(has_stack(open, &["slow_open", "main", "_start"]), "{open:#}");

    let receive = report.slow("recvfrom")?;
    let port = String::from_utf8_lossy(&report.outcome.stdout).trim().to_owned();
    let socket = argument(receive, "sockfd").unwrap_or_default();
    ensure!(
        socket.contains("<TCP:[127.0.0.1:") && socket.ends_with(&format!("->127.0.0.1:{port}]>")),
        "{receive:#}"
    );
    ensure!(
        argument(receive, "size") == Some("64") && argument(receive, "flags") == Some("MSG_PEEK"),
        "{receive:#}"
    );
    ensure!(receive["error"] == "EAGAIN" && receive["result"] == -11, "{receive:#}");
    ensure!(has_stack(receive, &["slow_receive", "main", "_start"]), "{receive:#}");

    // Waits are marked, and the fast calls are not listed.
    ensure!(
        report.slow("wait4").or_else(|_| report.slow("clock_nanosleep"))?["blocking"] == true,
        "{:#}",
        report.json
    );
    ensure!(
        report.list("slow").iter().all(|call| call["duration_ns"].as_u64() >= Some(50_000_000)),
        "{:#}",
        report.json
    );
    Ok(())
}

#[test]
fn calls_that_began_before_and_calls_in_flight() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("system_calls", &["0", "blocked"])?;
    let pid = workload.pid().to_string();
    let report = Report::run(&["-d", "1s"], &["-p", &pid])?;
    let open = report.list("in_flight");
    let waits = open.iter().find(|call| call["name"] == "pause").context("no pause in flight")?;
    ensure!(waits["begun_before"] == true && waits["blocking"] == true, "{waits:#}");
    ensure!(waits["elapsed_ns"].as_u64() >= Some(900_000_000), "{waits:#}");
    ensure!(report.calls("pause") == 0, "{:#}", report.json);
    // The main thread was in a sleep when the measurement began, as a rule; that one is in no row.
    ensure!(report.json["begun_before"].as_u64() <= Some(1), "{:#}", report.json);
    let longest = report.row("clock_nanosleep")?["max_ns"].as_u64();
    ensure!(longest < Some(900_000_000), "{:#}", report.json);
    Ok(())
}

#[test]
fn a_child_that_is_killed_in_a_call() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let report = Report::of_started(&["killed"], &[])?;
    report.lost_nothing()?;
    // The signal ends the wait, which returns to nobody.
    let pause = report.row("pause")?;
    ensure!(pause["calls"] == 1 && pause["errors"]["ERESTARTNOHAND"] == 1, "{pause:#}");
    let elapsed = pause["total_ns"].as_u64();
    ensure!((Some(80_000_000)..Some(2_000_000_000)).contains(&elapsed), "{pause:#}");
    ensure!(report.list("in_flight").is_empty(), "{:#}", report.json);
    Ok(())
}

/// The kernel gives the stack of a thread that ended to the next that begins, whoever's it is.
#[test]
fn threads_that_come_and_go_beside_those_of_another_program() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _other = Workload::native("system_calls", &["0", "churn"])?;
    let report = Report::of_started(&["threads"], &[])?;
    report.lost_nothing()?;
    // The thread that runs the program anew has the id of the process's first after that.
    ensure!(report.calls("getuid") == 2000 && report.calls("getppid") == 13, "{:#}", report.json);
    let of_32_bit: Vec<_> = report.rows("getpid").filter(|row| row["interface"] == "i386").collect();
    let calls: u64 = of_32_bit.iter().filter_map(|row| row["calls"].as_u64()).sum();
    ensure!(calls == if cfg!(target_arch = "x86_64") { 9 } else { 0 }, "{:#}", report.json);
    ensure!(report.list("in_flight").is_empty(), "{:#}", report.json);
    Ok(())
}

#[test]
fn the_whole_machine_and_a_process_that_dies() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("system_calls", &["2", "loop"])?;
    let pid = u64::from(workload.pid());
    let report = Report::run(&["-d", "4s"], &["-a"])?;
    let own = report.rows("getppid").find(|row| row["pid"] == pid).context("its calls are not there")?;
    ensure!(own["process"] == "system_calls" && own["calls"].as_u64() > Some(10_000), "{own:#}");
    Ok(())
}

#[test]
fn text_for_people() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let program = compile::native("system_calls")?;
    let outcome = Descry::new("syscalls")?
        .args(["--slower-than", "1ms", "--", &program.to_string_lossy(), "0", "count"])
        .succeed()?;
    let text = String::from_utf8(outcome.stdout)?;
    for expected in ["\nwork\n", "\nblocking waits", "getppid", "EBADF 5", "slow calls: ", "never returned 1"]
    {
        ensure!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    Ok(())
}
