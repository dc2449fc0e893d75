//! descry starts while clients are at it: their requests are seen from the first moment, and as many as the server says.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use descry_tests::machine;
use descry_tests::server::{free_port, nginx_command, open_to_all};
use descry_tests::workload::Workload;
use serde_json::Value;

use super::databases::{postgres_client, redis_benchmark, start_postgres, start_redis};
use super::{Server, Watching, number_after, said};

/// How long the server's count is compared for.
const WINDOW: Duration = Duration::from_secs(2);
/// Until the first request at most (ms).
const FIRST: f64 = 500.0;
/// Requests that end while the server counts, and those that it has counted before their answer has left: this part of
/// them, and so many more.
const EDGE: (f64, f64) = (0.005, 20.0);

/// A server's own count of requests that ended, and when it was so (Unix time, ns).
struct Count {
    requests: usize,
    time: u64,
}

fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// Watches for a while, and compares the spans `name` of both sides with the server's own count, which is asked for twice.
fn compare(name: &str, port: u16, count: impl Fn() -> Result<Count>) -> Result<()> {
    // Everybody is in the middle of something.
    sleep(Duration::from_millis(300));
    let watching = Watching::start()?;
    let began = now()?;
    sleep(Duration::from_millis(300));
    let first = count()?;
    sleep(WINDOW);
    let last = count()?;
    sleep(Duration::from_millis(100));
    let (report, outcome) = watching.stop()?;
    let lost = &report.summary["lost"];
    ensure!(*lost == serde_json::json!({}), "lost: {lost}\n{}", outcome.stderr);
    let expected = (last.requests - first.requests) as f64;
    for kind in ["server", "client"] {
        let time = |span: &Value, which: &str| span[which].as_u64().unwrap_or_default();
        let spans: Vec<&Value> = report
            .of(kind, name)
            .filter(|span| {
                span["attributes"]["server.port"].as_u64().is_none_or(|other| other == u64::from(port))
            })
            .collect();
        let starts = spans.iter().map(|span| time(span, "start_unix_nano"));
        let earliest =
            starts.min().with_context(|| format!("no spans {kind} {name}:\n{}", report.names()))?;
        let waited = (earliest as f64 - began as f64) / 1e6;
        ensure!(waited < FIRST, "the first span {kind} {name} begins after {waited} ms");
        let ended = spans.iter().map(|span| time(span, "end_unix_nano"));
        let seen = ended.filter(|time| (first.time..last.time).contains(time)).count() as f64;
        eprintln!("{name}: {seen} spans {kind}, {expected} by the server, the first after {waited:.1} ms");
        let edge = EDGE.1 + expected * EDGE.0;
        ensure!(
            expected > 100.0 && (seen - expected).abs() <= edge,
            "{seen} spans {kind} {name}, {expected} by the server's count"
        );
    }
    Ok(())
}

fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn wrk_is_at_it() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    open_to_all(dir.path())?;
    std::fs::write(dir.path().join("index.html"), "a small page\n")?;
    let port = free_port()?;
    let log = dir.path().join("access.log");
    let logs = format!("log_format times '$msec'; access_log {} times;", log.display());
    let server = Server::listening(nginx_command(dir.path(), port, "", &logs)?, port)?;
    // 8 connections, each of which waits for 4 ms after an answer.
    let script = dir.path().join("pace.lua");
    std::fs::write(&script, "function delay() return 4 end\n")?;
    let mut wrk = Command::new(machine::tool("wrk")?);
    wrk.args(["-t1", "-c8", "-d600s", "-s"]).arg(script).arg(format!("http://127.0.0.1:{port}/"));
    let _load = Workload::spawn(quiet(wrk))?;
    compare("GET /", server.port, || lines(&log))
}

/// A line a request that ended, each with when that was.
fn lines(log: &Path) -> Result<Count> {
    let text = std::fs::read_to_string(log)?;
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let last = complete.rsplit('\n').next().and_then(|line| line.parse::<f64>().ok());
    let time = (last.context("nothing was logged")? * 1e9) as u64;
    Ok(Count { requests: complete.split('\n').count(), time })
}

#[test]
fn pgbench_is_at_it() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    open_to_all(dir.path())?;
    let server = start_postgres(dir.path())?;
    let sql = |text: &str| said(postgres_client("psql", &server)?.args(["-X", "-A", "-t", "-c", text]));
    sql("CREATE EXTENSION pg_stat_statements")?;
    let mut pgbench = postgres_client("pgbench", &server)?;
    pgbench.args(["-n", "-S", "-M", "extended", "-c", "4", "-T", "600", "-R", "2000"]);
    let _load = Workload::spawn(quiet(pgbench))?;
    compare("SELECT pgbench_accounts", server.port, || {
        let text = sql("SELECT sum(calls), extract(epoch FROM clock_timestamp()) FROM pg_stat_statements \
             WHERE query LIKE '%abalance%pgbench_accounts%'")?;
        let row = text.trim().split_once('|').and_then(|(calls, time)| {
            Some(Count { requests: calls.parse().ok()?, time: (time.parse::<f64>().ok()? * 1e9) as u64 })
        });
        row.with_context(|| format!("no count: {text}"))
    })
}

#[test]
fn redis_benchmark_is_at_it() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let server = start_redis(dir.path())?;
    // A command that takes the server some hundred microseconds.
    let work = ["eval", "local sum = 0 for number = 1, 20000 do sum = sum + number end return sum", "0"];
    let mut load = redis_benchmark(&server, &["-c", "8", "-n", "100000000"])?;
    load.args(work);
    let _load = Workload::spawn(quiet(load))?;
    compare("eval", server.port, || {
        let mut info = Command::new(machine::tool("redis-cli")?);
        let text = said(info.args(["-p", &server.port.to_string(), "info", "everything"]))?;
        let micros: u64 = number_after(&text, "server_time_usec:")?;
        Ok(Count { requests: number_after(&text, "cmdstat_eval:calls=")?, time: micros * 1000 })
    })
}
