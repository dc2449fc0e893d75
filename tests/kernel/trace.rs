//! `descry trace`: exact counts, durations, nesting, and what leaves a function in another way than by returning.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::workload::Workload;
use descry_tests::{compile, machine};
use serde_json::Value;

/// What a trace said.
struct Trace {
    /// Calls, and those that did not return, by function.
    functions: BTreeMap<String, (u64, u64)>,
    spans: Vec<Value>,
    seen: u64,
    lost: u64,
    stderr: String,
}

impl Trace {
    /// Traces these functions of a program from its start to its end.
    fn of(program: &Path, arguments: &[&str], options: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("trace.json");
        let descry = Descry::new("trace")?.args(options).output(&file).args(["--"]);
        let outcome = descry.args([program.as_os_str()]).args(arguments).succeed()?;
        let text = std::fs::read_to_string(&file)?;
        let mut lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let summary = lines.pop().context("no last line")?;
        ensure!(summary["type"] == "summary", "the last line is {summary}");
        let rows = summary["functions"].as_array().context("no functions")?;
        let number = |value: &Value| value.as_u64().with_context(|| format!("{value} is no number"));
        let row = |row: &Value| -> Result<(String, (u64, u64))> {
            let name = row["name"].as_str().context("no name")?.to_owned();
            Ok((name, (number(&row["calls"])?, number(&row["unfinished"])?)))
        };
        Ok(Self {
            functions: rows.iter().map(row).collect::<Result<_>>()?,
            seen: number(&summary["seen"])?,
            lost: summary["lost"].as_object().context("no losses")?.values().filter_map(Value::as_u64).sum(),
            spans: lines,
            stderr: outcome.stderr,
        })
    }

    /// Of the workload `calls`.
    fn of_calls(arguments: &[&str], functions: &[&str], options: &[&str]) -> Result<Self> {
        let functions = functions.iter().flat_map(|function| ["-f", function]);
        let options: Vec<&str> = functions.chain(options.iter().copied()).collect();
        Self::of(&compile::native("calls")?, arguments, &options)
    }

    /// Exactly these functions were called, so often, and so many of the calls did not return.
    fn check(&self, expected: &[(&str, u64, u64)]) -> Result<()> {
        let expected: BTreeMap<String, (u64, u64)> = expected
            .iter()
            .map(|(name, calls, unfinished)| ((*name).to_owned(), (*calls, *unfinished)))
            .collect();
        ensure!(self.functions == expected, "{:?} instead of {expected:?}\n{}", self.functions, self.stderr);
        ensure!(
            self.spans.is_empty() || self.spans.len() as u64 + self.lost == self.seen,
            "{} spans and {} without one are not {} calls",
            self.spans.len(),
            self.lost,
            self.seen
        );
        Ok(())
    }

    /// Durations of the spans of this name (ns).
    fn durations(&self, name: &str) -> Vec<u64> {
        let time = |span: &Value, field: &str| span[field].as_u64().unwrap_or_default();
        let named = self.spans.iter().filter(|span| span["name"] == name);
        named.map(|span| time(span, "end_unix_nano") - time(span, "start_unix_nano")).collect()
    }
}

const HISTOGRAM: &str = "--histogram-only";

#[test]
fn every_call_is_counted() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    Trace::of_calls(&["pushed", "200000"], &["pushed"], &[HISTOGRAM])?.check(&[("pushed", 200_000, 0)])
}

#[test]
fn calls_of_threads() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    Trace::of_calls(&["threads", "5000"], &["in_thread"], &[HISTOGRAM])?.check(&[("in_thread", 20_000, 0)])
}

#[test]
fn spans_are_nested_and_last_as_long_as_the_calls() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let trace = Trace::of_calls(&["nested", "20"], &["outer", "inner"], &[])?;
    trace.check(&[("outer", 20, 0), ("inner", 40, 0)])?;
    // The calls wait by the clock; on a busy machine only some take longer.
    let least = |name| trace.durations(name).into_iter().min().unwrap_or_default();
    ensure!((200_000..220_000).contains(&least("inner")), "inner took {} ns", least("inner"));
    ensure!((500_000..550_000).contains(&least("outer")), "outer took {} ns", least("outer"));
    for span in &trace.spans {
        let is_outer = span["name"] == "outer";
        let parent = trace.spans.iter().find(|other| other["span_id"] == span["parent_span_id"]);
        ensure!(is_outer == span["parent_span_id"].is_null(), "{span}");
        ensure!(is_outer || parent.is_some_and(|parent| parent["name"] == "outer"), "{span}");
        ensure!(parent.is_none_or(|parent| parent["trace_id"] == span["trace_id"]), "{span}");
        let attributes = &span["attributes"];
        ensure!(attributes["code.function.name"] == span["name"], "{span}");
        ensure!(
            attributes["code.file.path"].as_str().is_some_and(|file| file.ends_with("calls.c")),
            "{span}"
        );
        ensure!(attributes["thread.name"] == "calls" && attributes["code.line.number"].is_u64(), "{span}");
    }
    Ok(())
}

#[test]
fn calls_beyond_the_rate_are_counted() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let trace = Trace::of_calls(&["pushed", "100000"], &["pushed"], &["--max-rate", "100"])?;
    trace.check(&[("pushed", 100_000, 0)])?;
    ensure!((1..10_000).contains(&trace.spans.len()), "{} spans", trace.spans.len());
    Ok(())
}

#[test]
fn recursion_is_followed_as_deep_as_the_kernel_goes() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    // 64 of 101 nested calls are followed.
    Trace::of_calls(&["recurse", "3"], &["recurse"], &[HISTOGRAM])?.check(&[("recurse", 303, 3 * 37)])
}

#[test]
fn longjmp_leaves_no_call_behind() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let trace = Trace::of_calls(&["longjmp", "50"], &["catches", "jumps"], &[])?;
    trace.check(&[("catches", 50, 0), ("jumps", 150, 150)])?;
    ensure!(
        trace.spans.iter().all(|span| span["parent_span_id"].is_null()),
        "a call lies in one that is gone"
    );
    Ok(())
}

#[test]
fn tail_calls_by_the_kernels_return_probe_and_by_instruction() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    for options in [&[][..], &["--exits-by-instruction"]] {
        let trace = Trace::of_calls(&["tail", "50"], &["tail_*"], options)?;
        trace.check(&[("tail_begin", 50, 0), ("tail_end", 50, 0)])?;
    }
    Ok(())
}

#[test]
fn a_fork_returns_twice_and_counts_once() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    Trace::of_calls(&["fork", "5"], &["forks", "in_child"], &[])?
        .check(&[("forks", 5, 0), ("in_child", 5, 0)])
}

#[test]
fn exit_and_exec_in_the_middle_of_calls() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    Trace::of_calls(&["exit"], &["main", "leaves"], &[])?.check(&[("main", 1, 1), ("leaves", 1, 1)])?;
    let trace = Trace::of_calls(&["exec", "3"], &["main", "outer", "inner"], &[])?;
    trace.check(&[("main", 2, 1), ("outer", 3, 0), ("inner", 7, 0)])
}

#[test]
fn exceptions_pass_through_traced_functions() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let program = compile::native("throws")?;
    let trace = Trace::of(&program, &["40"], &["-f", "space::*"])?;
    trace.check(&[
        ("space::catches<int>(int)", 40, 0),
        ("space::passes(int)", 120, 120),
        ("space::quiet()", 40, 0),
        ("space::thrower(int)", 80, 40),
    ])
}

#[test]
fn generic_functions_of_rust() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let trace = Trace::of(
        &compile::rust("generics")?,
        &["1"],
        &["-f", "generics::*", "-f", "<generics::*", HISTOGRAM],
    )?;
    let calls = |name: &str| trace.functions.get(name).map_or(0, |(calls, _)| *calls);
    ensure!(calls("generics::main") == 1 && calls("generics::run_all") > 0, "{:?}", trace.functions);
    let (doubler, adder) =
        ("<generics::Doubler as generics::Step>::apply", "<generics::Adder as generics::Step>::apply");
    ensure!(calls(doubler) == calls(adder) && calls(adder) > 0, "{:?}", trace.functions);
    ensure!(calls("generics::apply_twice") == calls(doubler) + calls(adder), "{:?}", trace.functions);
    Ok(())
}

#[test]
fn goroutines_whose_stacks_move() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let program = compile::go("calls")?;
    let functions =
        ["-f", "main.walk", "-f", "main.leaf", "-f", "main.recovers", "-f", "main.panics", HISTOGRAM];
    let dir = tempfile::tempdir_in(machine::work_dir()?)?;
    for program in [&program, &compile::stripped(&program, dir.path())?] {
        Trace::of(program, &["20", "20"], &functions)?.check(&[
            ("main.walk", 20 * 20 * 41, 0),
            ("main.leaf", 20 * 20, 0),
            ("main.recovers", 20 * 20, 0),
            ("main.panics", 20 * 20 * 4, 20 * 20 * 4),
        ])?;
    }
    Ok(())
}

#[test]
fn arguments_and_usdt_probes() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let trace = Trace::of(&compile::native("usdt")?, &[], &["-f", "add", "--usdt", "prov*:*", "--args"])?;
    // The program passes its probe only while the semaphore says that somebody listens.
    trace.check(&[("add", 3, 0), ("provider:name", 3, 0)])?;
    let arguments = |name: &str| -> Vec<&str> {
        let named = trace.spans.iter().filter(|span| span["name"] == name);
        named.filter_map(|span| span["attributes"]["descry.function.arguments"].as_str()).collect()
    };
    // A double lies between them, in a register of another kind.
    let expected =
        ["a=0, b=0, name=\"a\\\"b\"", "a=-1, b=10, name=\"a\\\"b\"", "a=-2, b=20, name=\"a\\\"b\""];
    ensure!(arguments("add") == expected, "{:?}", arguments("add"));
    let expected = ["arg1=0, arg2=0", "arg1=-1, arg2=10", "arg1=-2, arg2=20"];
    ensure!(arguments("provider:name") == expected, "{:?}", arguments("provider:name"));
    let outer = trace.spans.iter().find(|span| span["name"] == "add").context("no call")?;
    let probe = trace.spans.iter().find(|span| span["parent_span_id"] == outer["span_id"]);
    ensure!(probe.is_some_and(|probe| probe["name"] == "provider:name"), "the probe is in no call");
    Ok(())
}

#[test]
fn a_running_process_and_libraries_by_glob() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("split", &["60"])?;
    let trace = |options: &[&str]| {
        Descry::new("trace")?.pid(workload.pid()).args(options).args(["-d", "500ms", HISTOGRAM]).run()
    };
    let outcome = trace(&["-f", "libc.so*:mallok"])?;
    ensure!(outcome.code == Some(1) && outcome.stderr.contains("malloc"), "{}", outcome.stderr);
    let outcome = trace(&["-f", "libc.so*:*", "-f", "libc.so*:pthread_*"])?;
    ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    let outcome =
        Descry::new("trace")?.pid(workload.pid()).args(["-f", "libc.so*:malloc", "--list"]).succeed()?;
    let listed = String::from_utf8(outcome.stdout)?;
    ensure!(listed.contains("malloc  about ") && listed.contains("entry    0x"), "{listed}");
    Ok(())
}

#[test]
fn what_cannot_be_traced_says_why() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let check = |options: &[&str], code: i32, said: &str| -> Result<()> {
        let program = compile::native("calls")?;
        let outcome = Descry::new("trace")?.args(options).args(["--"]).args([&program]).run()?;
        ensure!(outcome.code == Some(code), "exit {:?} instead of {code}:\n{}", outcome.code, outcome.stderr);
        ensure!(outcome.stderr.contains(said), "nothing of {said:?} in:\n{}", outcome.stderr);
        Ok(())
    };
    check(&[], 2, "--function")?;
    check(&["-f", "0x1234"], 2, "is an address of no file")?;
    check(&["-f", "recurze"], 1, "nearest: recurse")?;
    check(&["-f", "nowhere.so:f"], 1, "no file of the target fits")?;
    check(&["-f", "/no/such/file:f"], 1, "/no/such/file")?;
    check(&["--usdt", "provider:nothing"], 1, "no USDT probe fits")?;
    check(&["-f", "main", "--usdt", "provider"], 2, "PROVIDER:NAME")
}
