//! Programs that others wrote.

use std::process::Command;

use anyhow::{Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::folded::Folded;
use descry_tests::server::{Nginx, Postgres};
use descry_tests::{compile, machine, workload::Workload};

use crate::{HZ, check_paths, check_whole, measure, measure_whole};

#[test]
fn python() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let mut command = Command::new(machine::tool("python3")?);
    command.arg(compile::script("deep.py")).arg("0");
    let workload = Workload::spawn_ready(command)?;
    let folded = measure_whole(workload.pid(), 4)?;
    // The interpreter calls itself once a level.
    let deep = folded.share(|stack| stack.count_of("_PyEval_EvalFrameDefault") >= 40);
    ensure!(deep > 0.9, "{deep} have forty calls of the interpreter:\n{}", folded.heaviest(3));
    Ok(())
}

#[test]
fn node() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let mut command = Command::new(machine::tool("node")?);
    command.arg(compile::script("deep.js")).arg("0");
    let workload = Workload::spawn_ready(command)?;
    let folded = measure_whole(workload.pid(), 4)?;
    // `main` goes on to it by a jump. Without a perf map the script's own functions have no names.
    check_paths(&folded, &[&["_start", "..", "node::Start", "..", "Builtins_JSEntry", ".."]], 0.9)
}

#[test]
fn node_with_a_perf_map() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    // It leaves a log where it runs.
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(machine::tool("node")?);
    command.current_dir(dir.path()).arg("--perf-basic-prof").arg(compile::script("deep.js")).arg("0");
    let workload = Workload::spawn_ready(command)?;
    let folded = measure_whole(workload.pid(), 4);
    std::fs::remove_file(format!("/tmp/perf-{}.map", workload.pid())).ok();
    let folded = folded?;
    let (descend, bottom) = (folded.total_of("*descend*"), folded.total_of("*bottom*"));
    // The way down takes time of its own, some 5 to 10 % by the processor.
    ensure!(
        descend > 0.9 && bottom > 0.8,
        "{descend} have the script's `descend`, {bottom} `bottom`:\n{}",
        folded.heaviest(5)
    );
    Ok(())
}

/// `openssl speed` on one algorithm, from start to end.
fn openssl(algorithm: &[&str]) -> Result<Folded> {
    let openssl = machine::tool("openssl")?;
    let command = Descry::profile(HZ, 60)?.args(["--".as_ref(), openssl.as_os_str()]);
    let (folded, stats) = measure(command.args(["speed", "-seconds", "1"]).args(algorithm))?;
    // These are few samples, and one that hits while the program is still starting may be cut.
    ensure!(
        stats.rooted >= crate::ROOTED || stats.truncated <= 1,
        "{} rooted:\n{}",
        stats.rooted,
        folded.filter(|stack| stack.truncated).heaviest(10)
    );
    Ok(folded)
}

#[test]
fn openssl_speed() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    for algorithm in [
        &["-bytes", "8192", "sha256"][..],
        &["-bytes", "8192", "-evp", "aes-256-gcm"],
        &["-bytes", "8192", "-evp", "chacha20-poly1305"],
        &["rsa2048"],
        &["ecdsap256"],
    ] {
        openssl(algorithm)?;
    }
    Ok(())
}

#[test]
fn postgres_under_pgbench() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let postgres = Postgres::start()?;
    let mut descry = Descry::profile(HZ, 4)?;
    for backend in postgres.backends()? {
        descry = descry.pid(backend);
    }
    let (folded, stats) = measure(descry)?;
    check_whole(&folded, &stats)?;
    check_paths(&folded, &[&["..", "PostmasterMain", "..", "PostgresMain", ".."]], 0.95)?;
    // The same by name and with children: the server's first process started them all.
    let (folded, _) = measure(Descry::profile(HZ, 2)?.pid(postgres.pid()).args(["--follow"]))?;
    ensure!(folded.total_of("PostgresMain") > 0.9, "followed:\n{}", folded.heaviest(5));
    Ok(())
}

#[test]
fn nginx_under_wrk() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let nginx = Nginx::start()?;
    let folded = measure_whole(nginx.worker()?, 4)?;
    ensure!(folded.total_of("*_[k]") > 0.2, "hardly any system calls:\n{}", folded.heaviest(5));
    Ok(())
}
