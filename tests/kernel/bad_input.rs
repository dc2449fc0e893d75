//! What is wrong is said, with the exit code that the commands promise.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::{Descry, Outcome, binary};
use descry_tests::folded::Folded;
use descry_tests::machine;
use descry_tests::{compile, workload::Workload};
use nix::sys::signal::Signal;

use crate::{HZ, check_paths};

/// It ended with this code, and what it said has all of these.
fn check(outcome: &Outcome, code: i32, said: &[&str]) -> Result<()> {
    ensure!(outcome.code == Some(code), "exit {:?} instead of {code}:\n{}", outcome.code, outcome.stderr);
    for text in said {
        ensure!(outcome.stderr.contains(text), "nothing of {text:?} in:\n{}", outcome.stderr);
    }
    ensure!(!outcome.stderr.contains("panicked"), "a panic:\n{}", outcome.stderr);
    Ok(())
}

#[test]
fn no_such_process() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    // One above the highest process id of Linux.
    check(&Descry::profile(99, 1)?.pid(4_194_304).run()?, 1, &["4194304"])
}

#[test]
fn no_target() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    check(&Descry::profile(99, 1)?.run()?, 2, &["-p", "-a"])
}

#[test]
fn wrong_usage() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    for (options, said) in [
        (&["-a", "-F", "0"][..], "0"),
        (&["-a", "-F", "5000"], "4999"),
        (&["-a", "-d", "soon"], "soon"),
        (&["-p", "one"], "one"),
        (&["-a", "--format", "picture"], "picture"),
        (&["-a", "--no-such-option"], "--no-such-option"),
        (&["-a", "--mode", "on-cpu"], "on-cpu"),
        (&["-a", "--wakers"], "--mode off-cpu"),
        (&["-a", "--min", "1ms"], "--mode off-cpu"),
    ] {
        check(&Descry::new("profile")?.args(options).run()?, 2, &[said])?;
    }
    Ok(())
}

#[test]
fn a_process_that_ends_meanwhile() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ended.folded");
    let mut workload = Workload::native("split", &["2"])?;
    let descry =
        Descry::new("profile")?.pid(workload.pid()).args(["-F", "999", "-d", "5s"]).output(&file).spawn()?;
    workload.wait()?;
    let outcome = descry.wait()?;
    ensure!(outcome.code == Some(0), "descry ended with {:?}:\n{}", outcome.code, outcome.stderr);
    let folded = Folded::parse(&std::fs::read_to_string(&file)?)?;
    ensure!(folded.total() > 300, "{} samples:\n{}", folded.total(), outcome.stderr);
    check_paths(&folded, &[&["_start", "..", "main", "cycle", "..", "burn_until_[i]", ".."]], 0.95)
}

#[test]
fn an_output_that_cannot_be_written() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("split", &[])?;
    for path in ["/no/such/directory/out.folded", "/dev/full"] {
        let descry = Descry::profile_to(99, 1, path.as_ref())?.pid(workload.pid());
        check(&descry.run()?, 1, &[path])?;
    }
    Ok(())
}

#[test]
fn an_endpoint_where_nobody_listens() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("kept.folded");
    let workload = Workload::native("split", &[])?;
    let endpoint = format!("http://127.0.0.1:{}", descry_tests::server::free_port()?);
    let outcome = Descry::profile_to(HZ, 1, &file)?
        .pid(workload.pid())
        .args(["--otlp-endpoint", &endpoint])
        // Milliseconds: how long to try.
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
        .run()?;
    check(&outcome, 1, &[&endpoint])?;
    let folded = Folded::parse(&std::fs::read_to_string(&file)?)?;
    ensure!(folded.total() > 0, "the file is empty");
    Ok(())
}

#[test]
fn no_rights() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("split", &[])?;
    // Nobody may not enter every directory that the build lies in.
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let copy = dir.path().join("descry");
    std::fs::copy(binary()?, &copy)?;
    let setpriv = machine::tool("setpriv")?;
    let nobody =
        [setpriv.as_os_str(), "--reuid=65534".as_ref(), "--regid=65534".as_ref(), "--clear-groups".as_ref()];
    let command = [&nobody[..], &[copy.as_os_str(), "profile".as_ref()]].concat();
    check(&Descry::through(&command).pid(workload.pid()).args(["-d", "1s"]).run()?, 3, &["CAP_"])?;
    // Root without the rights that matter.
    let bounded = ["--bounding-set=-bpf,-sys_admin,-perfmon".as_ref(), "--inh-caps=-all".as_ref()];
    let command = [&[setpriv.as_os_str()], &bounded[..], &[copy.as_os_str(), "profile".as_ref()]].concat();
    check(&Descry::through(&command).pid(workload.pid()).args(["-d", "1s"]).run()?, 3, &["CAP_BPF"])
}

#[test]
fn no_kernel_types() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::native("split", &[])?;
    let hidden = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\"";
    let descry = binary()?;
    let unshare = machine::tool("unshare")?;
    let command = [
        unshare.as_os_str(),
        "--mount".as_ref(),
        "sh".as_ref(),
        "-c".as_ref(),
        hidden.as_ref(),
        descry.as_os_str(),
        "profile".as_ref(),
    ];
    check(&Descry::through(&command).pid(workload.pid()).args(["-d", "1s"]).run()?, 3, &["BTF"])
}

#[test]
fn a_command_and_its_exit_code() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let code = "exit 7";
    let passed = Descry::profile(99, 10)?.args(["--exit-code", "--", "sh", "-c", code]).run()?;
    check(&passed, 7, &[])?;
    let kept = Descry::profile(99, 10)?.args(["--", "sh", "-c", code]).run()?;
    check(&kept, 0, &[])?;
    let missing = Descry::profile(99, 10)?.args(["--", "/no/such/program"]).run()?;
    check(&missing, 1, &["/no/such/program"])
}

#[test]
fn a_command_is_measured_from_its_beginning_to_its_end() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let split = compile::native("split")?;
    let outcome =
        Descry::profile(HZ, 60)?.args(["--".as_ref(), split.as_os_str(), "2".as_ref()]).succeed()?;
    let folded = outcome.folded()?;
    // Two seconds of it, not sixty; and its first instructions, which are the dynamic linker's or the kernel's exec.
    ensure!((1000..=2200).contains(&folded.total()), "{} samples", folded.total());
    ensure!(outcome.stats()?.rooted >= crate::ROOTED, "rooted:\n{}", outcome.stderr);
    Ok(())
}

#[test]
fn an_interrupt_ends_it_early_with_its_result() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let file = dir.path().join(format!("{signal}.folded"));
        let workload = Workload::native("split", &[])?;
        let mut descry = Descry::profile_to(HZ, 100, &file)?.pid(workload.pid()).spawn()?;
        descry.measuring()?;
        std::thread::sleep(std::time::Duration::from_secs(2));
        descry.signal(signal)?;
        let outcome = descry.wait()?;
        check(&outcome, 0, &[])?;
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("after {signal}: {}", outcome.stderr))?;
        let folded = Folded::parse(&text)?;
        ensure!(folded.total() > 500, "{} samples after {signal}", folded.total());
    }
    Ok(())
}
