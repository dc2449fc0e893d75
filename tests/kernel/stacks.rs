//! Whole stacks, every function named, of programs that make it hard.

use anyhow::{Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::workload::{Workload, eventually};
use nix::sys::signal::Signal;

use crate::{HZ, check_paths, check_share, measure, measure_whole};

/// Seconds that each is measured.
const SECONDS: u32 = 3;

/// Measures a C or C++ workload and checks that its stacks are whole and like one of these.
fn check(name: &str, arguments: &[&str], paths: &[&[&str]], least: f64) -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native(name, arguments)?;
    let folded = measure_whole(workload.pid(), SECONDS)?;
    check_paths(&folded, paths, least)
}

#[test]
fn recursion_through_qsort_sixty_deep() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("deep", &[])?;
    let folded = measure_whole(workload.pid(), SECONDS)?;
    let bottom = folded.filter(|stack| stack.has("bottom"));
    check_share(&folded, "bottom", folded.total_of("bottom"), 1.0, 0.01)?;
    let wrong = bottom.filter(|stack| stack.count_of("compare") != 60);
    ensure!(wrong.total() == 0, "not sixty deep:\n{}", wrong.heaviest(5));
    let path: &[&str] = &[
        "_start",
        "..",
        "main",
        "..",
        "compare",
        "bottom",
        "innermost_[i]",
        "burn_[i]",
        "burn_until_[i]",
        "..",
    ];
    check_paths(&folded, &[path], 0.99)
}

/// The kernel puts its own address in the place of the return address of each function with a return probe.
#[test]
fn through_functions_that_are_traced() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("deep", &[])?;
    let pid = workload.pid();
    let tracer = Descry::new("trace")?.pid(pid).args(["-f", "deep:compare", "-f", "deep:bottom"]);
    let tracer = tracer.args(["--histogram-only", "-d", "60s"]).spawn()?;
    eventually("a call of a traced function", || {
        Ok(std::fs::read_to_string(format!("/proc/{pid}/maps"))?.contains("[uprobes]").then_some(()))
    })?;
    // Calls that began before the probes were there end first.
    std::thread::sleep(std::time::Duration::from_secs(1));
    // Samples in the probes' own code have no stack: these take their share of the time.
    let (folded, _) = measure(Descry::profile(HZ, SECONDS)?.pid(pid))?;
    tracer.signal(Signal::SIGINT)?;
    ensure!(tracer.wait()?.code == Some(0), "the tracer failed");
    let bottom = folded.filter(|stack| stack.has("bottom"));
    ensure!(bottom.total() > 0, "no sample below the traced functions:\n{}", folded.heaviest(5));
    let wrong = bottom.filter(|stack| stack.count_of("compare") != 60);
    ensure!(wrong.total() * 100 <= bottom.total(), "not sixty deep:\n{}", wrong.heaviest(5));
    check_paths(&bottom, &[&["_start", "..", "main", "..", "compare", "bottom", ".."]], 0.99)
}

#[test]
fn frames_of_run_time_size() -> Result<()> {
    let mut path = vec!["_start", "..", "main"];
    path.extend(["grow"; 10]);
    path.extend(["bottom", "burn_[i]", "burn_until_[i]", ".."]);
    check("alloca", &[], &[&path], 0.99)
}

#[test]
fn realigned_stacks() -> Result<()> {
    let mut path = vec!["_start", "..", "main"];
    path.extend(["realigned"; 8]);
    path.extend(["bottom", "burn_[i]", "burn_until_[i]", ".."]);
    check("realign", &[], &[&path], 0.99)
}

#[test]
fn unusual_rules() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("rules", &[])?;
    let folded = measure_whole(workload.pid(), SECONDS)?;
    for rule in ["cfa_by_rbx", "cfa_by_expression", "rbp_by_expression", "rbp_in_register"] {
        let path: &[&str] = &["_start", "..", "main", "framed", rule, "bottom", "burn_[i]", ".."];
        let share = folded.share(|stack| stack.matches(path));
        check_share(&folded, rule, share, 0.25, 0.03)?;
    }
    Ok(())
}

fn through_a_signal(arguments: &[&str]) -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("signal", arguments)?;
    let folded = measure_whole(workload.pid(), SECONDS)?;
    check_share(&folded, "in_handler", folded.total_of("in_handler"), 0.5, 0.3)?;
    let handler = folded.filter(|stack| stack.has("in_handler"));
    let path: &[&str] =
        &["_start", "..", "main", "work", "interrupted", "..", "on_signal", "in_handler", "burn_[i]", ".."];
    check_paths(&handler, &[path], 0.97)
}

#[test]
fn through_a_signal_frame() -> Result<()> {
    through_a_signal(&[])
}

#[test]
fn through_a_signal_frame_on_its_own_stack() -> Result<()> {
    through_a_signal(&["0", "alt"])
}

#[test]
fn deeper_than_the_limit_is_marked() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("very_deep", &[])?;
    let (folded, stats) = measure(Descry::profile(HZ, SECONDS)?.pid(workload.pid()))?;
    let cut = folded.filter(|stack| stack.truncated);
    ensure!(stats.truncated == cut.total(), "{} are cut, {} are marked", stats.truncated, cut.total());
    check_share(&folded, "cut", folded.share(|stack| stack.truncated), 1.0, 0.02)?;
    let leaves = cut.filter(|stack| {
        stack.count_of("descend") >= 500 && stack.matches(&["descend", "..", "bottom", "burn_[i]", ".."])
    });
    check_share(&cut, "500 frames of the leaf's end", leaves.total() as f64 / cut.total() as f64, 1.0, 0.02)
}

#[test]
fn kernel_frames_above_the_system_call() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("syscalls", &[])?;
    let folded = measure_whole(workload.pid(), SECONDS)?;
    let path: &[&str] =
        &["_start", "..", "main", "read_blocks", "read_block", "*read", "entry_SYSCALL_64*", "..", "*_[k]"];
    let aarch64: &[&str] = &["_start", "..", "main", "read_blocks", "read_block", "*read", "..", "*_[k]"];
    check_paths(&folded, &[path, aarch64], 0.97)?;
    let mixed = folded.filter(|stack| stack.frames.is_sorted_by_key(|frame| frame.kernel));
    ensure!(mixed.total() == folded.total(), "user frames above kernel frames");
    let unknown = folded.filter(|stack| stack.frames.iter().any(|frame| frame.kernel && frame.unknown()));
    ensure!(unknown.total() == 0, "kernel frames without a name:\n{}", unknown.heaviest(5));
    Ok(())
}

#[test]
fn in_the_vdso() -> Result<()> {
    check("vdso", &[], &[&["_start", "..", "main", "ask_clock", ".."]], 0.99)
}

#[test]
fn in_lazy_linkage_stubs() -> Result<()> {
    check("plt", &[], &[&["_start", "..", "main", "call_library", ".."]], 0.99)
}

#[test]
fn in_linkage_stubs_with_branch_tracking() -> Result<()> {
    check("plt_sec", &[], &[&["_start", "..", "main", "call_library", ".."]], 0.99)
}

#[test]
fn a_static_program() -> Result<()> {
    check("static", &[], &[&["_start", "..", "main", "cycle", "..", "burn_until_[i]", ".."]], 0.99)
}

#[test]
fn exceptions() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("exceptions", &[])?;
    let (folded, _) = measure(Descry::profile(HZ, SECONDS)?.pid(workload.pid()))?;
    // libgcc's own unwinder writes into its frame before it leaves, of which its rows say nothing.
    check_paths(&folded, &[&["_start", "..", "main", ".."]], 0.995)?;
    // The call is the last instruction of its function.
    let throwing = folded.filter(|stack| stack.has("__cxa_throw"));
    ensure!(throwing.total() > 0, "no sample in a throw:\n{}", folded.heaviest(10));
    check_paths(&throwing, &[&["_start", "..", "shop::pass", "shop::thrower", "__cxa_throw", ".."]], 0.97)
}

/// How many samples fall on the loop around an inlined function, and how many on the function itself, is the processor's
/// business: which instruction of a few a sample names. This many at least are on the function.
const INLINED: f64 = 0.25;

#[test]
fn templates_and_lambdas() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("templates", &[])?;
    let folded = measure_whole(workload.pid(), SECONDS)?;
    let path = ["_start", "..", "main", "..", "*::Folder::operator()*", "*::fold<*", "*add_[i]", ".."];
    check_paths(&folded, &[&path], INLINED)?;
    check_paths(
        &folded,
        &[&["_start", "..", "main", "..", "*::Folder::operator()*", "*::fold<*", ".."]],
        0.95,
    )
}

#[test]
fn rust_generics_and_inlining() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::rust("generics", &[])?;
    let folded = measure_whole(workload.pid(), SECONDS)?;
    let steps = ["*Doubler as generics::Step>::apply", "*Adder as generics::Step>::apply"];
    let path = |step: &'static str, inlined: &[&'static str]| {
        let called = [
            "_start",
            "..",
            "generics::main",
            "..",
            "generics::run_all",
            "..",
            step,
            "generics::apply_twice",
        ];
        [&called, inlined, &[".."]].concat()
    };
    let [doubler, adder] = steps.map(|step| path(step, &["*combine<*_[i]", "*step<*_[i]"]));
    check_paths(&folded, &[&doubler, &adder], INLINED)?;
    let [doubler, adder] = steps.map(|step| path(step, &[]));
    check_paths(&folded, &[&doubler, &adder], 0.95)
}
