//! What changes while it is measured: mappings, programs, processes, names.

use std::process::Command;

use anyhow::{Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::{compile, workload::Workload};

use crate::{HZ, ROOTED, check_paths, check_share, check_whole, measure, measure_whole};

fn dlopen(mode: &str) -> Result<Workload> {
    let mut command = Command::new(compile::native("dlopen")?);
    command.arg("0").arg(compile::native("alpha.so")?).arg(compile::native("beta.so")?).arg(mode);
    Workload::spawn_ready(command)
}

#[test]
fn a_library_opened_meanwhile() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = dlopen("once")?;
    let folded = measure_whole(workload.pid(), 5)?;
    let before: &[&str] = &["_start", "..", "main", "before_open", "burn_[i]", ".."];
    let after: &[&str] = &[
        "_start",
        "..",
        "main",
        "call_plugin",
        "plugin_entry",
        "alpha_inner",
        "alpha_burn",
        "burn_[i]",
        "..",
    ];
    check_paths(&folded, &[before, after], 0.99)?;
    ensure!(folded.total_of("alpha_burn") > 0.4, "the library is hardly there:\n{}", folded.heaviest(5));
    Ok(())
}

#[test]
fn a_library_in_the_place_of_another() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = dlopen("swap")?;
    let (folded, stats) = measure(Descry::profile(HZ, 6)?.pid(workload.pid()))?;
    // It changes every 200 ms; some samples right after a change may come before descry knows of it.
    ensure!(stats.rooted > 0.98, "{} rooted:\n{}", stats.rooted, folded.heaviest(10));
    check_share(&folded, "alpha", folded.total_of("alpha_burn"), 0.5, 0.04)?;
    check_share(&folded, "beta", folded.total_of("beta_burn"), 0.5, 0.04)?;
    let burning = folded.filter(|stack| stack.has("alpha_burn") || stack.has("beta_burn"));
    check_paths(
        &burning,
        &[
            &[
                "_start",
                "..",
                "main",
                "call_plugin",
                "plugin_entry",
                "alpha_inner",
                "alpha_burn",
                "burn_[i]",
                "..",
            ],
            &[
                "_start",
                "..",
                "main",
                "call_plugin",
                "plugin_entry",
                "beta_inner",
                "beta_burn",
                "burn_[i]",
                "..",
            ],
        ],
        0.98,
    )
}

#[test]
fn another_program_in_the_same_process() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let (exec, split) = (compile::native("exec")?, compile::native("split")?);
    let descry = Descry::profile(HZ, 60)?.args(["--"]).args([&exec, &split]).args(["2"]);
    let (folded, stats) = measure(descry)?;
    check_whole(&folded, &stats)?;
    let (first, second) = (folded.of("exec"), folded.of("split"));
    check_paths(&first, &[&["_start", "..", "main", "before_exec", "burn_[i]", ".."]], 0.95)?;
    check_share(&second, "sixty", second.total_of("sixty"), 0.6, 0.05)?;
    ensure!(
        !second.stacks.iter().any(|stack| stack.has("before_exec")),
        "the first program under the second's name"
    );
    check_share(
        &folded,
        "both",
        folded.share(|stack| stack.has("before_exec") || stack.has("cycle")),
        1.0,
        0.03,
    )
}

#[test]
fn children_of_a_started_program() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let fork = compile::native("fork")?;
    let (folded, stats) = measure(Descry::profile(HZ, 60)?.args(["--"]).args([&fork]).args(["3"]))?;
    check_whole(&folded, &stats)?;
    check_share(&folded, "children", folded.total_of("child_work"), 0.5, 0.05)?;
    check_share(&folded, "parent", folded.total_of("parent_work"), 0.5, 0.05)
}

#[test]
fn children_when_followed() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("fork", &[])?;
    let (folded, stats) = measure(Descry::profile(HZ, 4)?.pid(workload.pid()).args(["--follow"]))?;
    check_whole(&folded, &stats)?;
    check_share(&folded, "children", folded.total_of("child_work"), 0.5, 0.05)
}

#[test]
fn no_children_when_not_followed() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("fork", &[])?;
    let folded = measure_whole(workload.pid(), 3)?;
    check_share(&folded, "children", folded.total_of("child_work"), 0.0, 0.0)?;
    check_share(&folded, "parent", folded.total_of("parent_work"), 1.0, 0.02)
}

#[test]
fn children_that_were_there_before() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("fork", &["0", "keep"])?;
    let (folded, stats) = measure(Descry::profile(HZ, 2)?.pid(workload.pid()).args(["--follow"]))?;
    check_whole(&folded, &stats)?;
    check_share(&folded, "child", folded.total_of("child_work"), 1.0, 0.02)
}

#[test]
fn a_hundred_short_lived_processes() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let short = compile::native("short")?;
    let descry = Descry::profile(HZ, 60)?.args(["--follow", "--"]).args([&short]).args(["0", "100"]);
    let (folded, _) = measure(descry)?;
    // In the middle of exec the old program's memory is gone, and the new one has no stack yet.
    let cut = folded.filter(|stack| stack.truncated && !stack.has("bprm_execve_[k]"));
    let share = cut.total() as f64 / folded.total() as f64;
    ensure!(share <= 1.0 - ROOTED, "{share} are cut: {}", cut.heaviest(10));
    let work = folded.filter(|stack| stack.has("short_lived_work"));
    // A hundred times 10 ms at 999 Hz.
    ensure!((850..=1100).contains(&work.total()), "{} samples of\n{}", work.total(), folded.heaviest(10));
    check_paths(&work, &[&["_start", "..", "main", "short_lived_work", "burn_[i]", ".."]], ROOTED)
}

#[test]
fn a_new_name() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("comm", &[])?;
    let (folded, _) = measure(Descry::profile(HZ, 4)?.pid(workload.pid()).args(["--per-thread"]))?;
    let before: &[&str] = &["comm", "_start", "..", "main", "before_rename", ".."];
    let after: &[&str] = &["renamed", "_start", "..", "main", "after_rename", ".."];
    check_paths(&folded, &[before, after], 0.99)?;
    ensure!(folded.total_of("after_rename") > 0.3, "no time after the change:\n{}", folded.heaviest(5));
    Ok(())
}

#[test]
fn a_program_deleted_after_its_start() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join("deleted");
    std::fs::copy(compile::native("split")?, &copy)?;
    let workload = Workload::start::<&str>(&copy, &[])?;
    std::fs::remove_file(&copy)?;
    let folded = measure_whole(workload.pid(), 2)?;
    check_paths(&folded, &[&["_start", "..", "main", "cycle", "..", "burn_until_[i]", ".."]], 0.99)
}

#[test]
fn a_program_replaced_after_its_start() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let (copy, other) = (dir.path().join("replaced"), dir.path().join("other"));
    std::fs::copy(compile::native("split")?, &copy)?;
    std::fs::copy(compile::native("templates")?, &other)?;
    let workload = Workload::start::<&str>(&copy, &[])?;
    std::fs::rename(&other, &copy)?;
    let folded = measure_whole(workload.pid(), 2)?;
    check_paths(&folded, &[&["_start", "..", "main", "cycle", "..", "burn_until_[i]", ".."]], 0.99)
}
