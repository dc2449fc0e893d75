//! `descry trace` where what is asked is too much, or cannot be, and where a target ends or has only begun.

use anyhow::{Context, Result, ensure};
use descry_tests::descry::{Descry, Outcome};
use descry_tests::workload::Workload;
use descry_tests::{compile, machine};
use serde_json::Value;

/// It ended with this code, and said all of these.
fn check(outcome: &Outcome, code: i32, said: &[&str]) -> Result<()> {
    ensure!(outcome.code == Some(code), "exit {:?} instead of {code}:\n{}", outcome.code, outcome.stderr);
    for text in said {
        ensure!(outcome.stderr.contains(text), "nothing of {text:?} in:\n{}", outcome.stderr);
    }
    Ok(())
}

/// Calls of each function, as the last line of JSON on stdout tells them.
fn calls(outcome: &Outcome) -> Result<Vec<(String, u64)>> {
    let text = String::from_utf8_lossy(&outcome.stdout);
    let summary: Value = serde_json::from_str(text.lines().last().context("nothing was written")?)?;
    let rows = summary["functions"].as_array().context("no functions")?;
    let row = |row: &Value| Some((row["name"].as_str()?.to_owned(), row["calls"].as_u64()?));
    rows.iter().map(|function| row(function).context("a row without name or calls")).collect()
}

const JSON: [&str; 3] = ["--histogram-only", "--format", "json"];

#[test]
fn more_than_ten_thousand_places_must_be_confirmed() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let program = compile::native("many")?;
    let trace = |options: &[&str]| {
        Descry::new("trace")?.args(["-f", "many_*"]).args(options).args(["--"]).args([&program]).run()
    };
    check(&trace(&[])?, 2, &["10001 places", "more than 10000", "--yes"])?;
    let outcome = trace(&[&JSON[..], &["--yes"]].concat())?;
    check(&outcome, 0, &[])?;
    let called: Vec<_> = calls(&outcome)?.into_iter().filter(|(_, calls)| *calls > 0).collect();
    ensure!(called.iter().all(|(_, calls)| *calls == 1), "{called:?}");
    let mut names: Vec<_> = called.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    ensure!(names == ["many_0", "many_10000"], "{names:?}");
    Ok(())
}

#[test]
fn a_stripped_file_says_so() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir_in(machine::work_dir()?)?;
    let stripped = compile::stripped(&compile::native("calls")?, dir.path())?;
    let outcome = Descry::new("trace")?.args(["-f", "stripped:recurse", "--"]).args([&stripped]).run()?;
    check(&outcome, 1, &["no function fits `stripped:recurse`", "stripped: only names that other files use"])
}

#[test]
fn functions_that_cannot_be_probed_say_why() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let program = compile::native("many")?;
    let why = "it only chooses an implementation when the program starts (ifunc)";
    let trace = |options: &[&str]| {
        let descry = Descry::new("trace")?.args(["-f", "libc.so*:memcpy"]).args(options);
        descry.args(["--"]).args([&program]).run()
    };
    check(&trace(&[])?, 0, &["cannot trace memcpy", why])?;
    let listed = trace(&["--list"])?;
    check(&listed, 0, &[])?;
    let text = String::from_utf8_lossy(&listed.stdout);
    ensure!(text.contains("memcpy  cannot be probed") && text.contains(why), "{text}");
    Ok(())
}

#[test]
fn a_library_is_traced_from_the_programs_first_instruction_on() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    // The first thing that a program does is to call this function of libc, which calls `main` and never returns.
    let program = compile::native("many")?;
    let trace = Descry::new("trace")?.args(["-f", "libc.so*:__libc_start_main"]).args(JSON);
    let outcome = trace.args(["--"]).args([&program]).succeed()?;
    let calls = calls(&outcome)?;
    ensure!(calls == [("__libc_start_main".to_owned(), 1)], "{calls:?}\n{}", outcome.stderr);
    Ok(())
}

#[test]
fn a_process_that_ends_or_becomes_another_program_meanwhile() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("split", &["3"])?;
    let trace = Descry::new("trace")?.pid(workload.pid()).args(["-f", "cycle", "-d", "20s"]).args(JSON);
    let outcome = trace.succeed()?;
    check(&outcome, 0, &["every measured process has ended"])?;
    let cycles = calls(&outcome)?;
    ensure!(matches!(cycles.as_slice(), [(_, 50..)]), "{cycles:?}");

    let next = compile::native("split")?;
    let workload = Workload::native("exec", &[&next.to_string_lossy(), "2"])?;
    let trace = Descry::new("trace")?.pid(workload.pid()).args(["-f", "before_exec"]);
    trace.args(["-d", "20s"]).args(JSON).succeed().map(drop)
}
