//! PostgreSQL, MariaDB and Redis, and the benchmarks that come with them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use descry_tests::machine;
use descry_tests::server::{free_port, postgres_command};
use descry_tests::workload::eventually;
use nix::sys::signal::Signal;

use super::{Asked, Scenario, Server, Took, number_after, play, said};

pub(crate) fn start_postgres(dir: &Path) -> Result<Server> {
    let port = free_port()?;
    let settings = [
        "listen_addresses=127.0.0.1",
        &format!("port={port}"),
        "shared_preload_libraries=pg_stat_statements",
    ];
    let mut server = Server::listening(postgres_command(dir, &settings)?, port)?;
    // A fast shutdown, so that it gives back its shared memory.
    server.shutdown = Some(Signal::SIGINT);
    let fill = || Ok(pgbench(&server, &["-i", "-q"])?.status()?.success().then_some(()));
    eventually("pgbench to fill its tables", fill)?;
    Ok(server)
}

pub(super) fn postgres_client(name: &str, server: &Server) -> Result<Command> {
    let mut command = Command::new(machine::tool(name)?);
    command.args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-U", "postgres"]);
    command.env("PGDATABASE", "postgres").env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable");
    Ok(command)
}

fn pgbench(server: &Server, arguments: &[&str]) -> Result<Command> {
    let mut command = postgres_client("pgbench", server)?;
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Transactions, by pgbench's own count and its own log.
fn transactions(server: &Server, dir: &Path, arguments: &[&str]) -> Result<(usize, Option<Took>)> {
    let logs = dir.join("pgbench-logs");
    fs::remove_dir_all(&logs).ok();
    fs::create_dir(&logs)?;
    let mut command = postgres_client("pgbench", server)?;
    command.args(arguments).arg("-n").arg("-l").arg(format!("--log-prefix={}", logs.join("log").display()));
    let text = said(&mut command)?;
    let mut took = Vec::new();
    for log in fs::read_dir(&logs)? {
        let log = fs::read_to_string(log?.path())?;
        // Client, transaction, duration (us), ...
        let durations = log.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok());
        took.extend(durations.map(|micros| micros / 1e3));
    }
    let count = number_after(&text, "number of transactions actually processed:")?;
    ensure!(took.len() == count, "pgbench logged {} of {count} transactions", took.len());
    Ok((count, Took::of(took)))
}

const SELECT: &str = "SELECT pgbench_accounts";

/// One statement a transaction, in one of the three ways of asking; the first two add pgbench's own five.
fn selects(mode: &str, server: &Server, dir: &Path) -> Result<Vec<Asked>> {
    let (count, took) = transactions(server, dir, &["-S", "-M", mode, "-c", "4", "-t", "750"])?;
    Ok(vec![Asked::new(SELECT, count).with("db.operation.name", "SELECT").taking(took)])
}

const SIMPLE: Scenario = Scenario {
    name: "pgbench -M simple",
    start: start_postgres,
    drive: |server, dir| {
        let (selects, took) = transactions(server, dir, &["-S", "-M", "simple", "-c", "4", "-t", "750"])?;
        let (all, _) = transactions(server, dir, &["-M", "simple", "-c", "2", "-t", "100"])?;
        let asked = |name: &str, count| Asked::new(name, count).with("db.system.name", "postgresql");
        let mut select = asked(SELECT, selects + all);
        // Those among transactions of other statements take as long.
        select.took = took.filter(|_| all == 0);
        Ok(vec![
            select,
            asked("BEGIN", all),
            asked("UPDATE pgbench_accounts", all),
            asked("UPDATE pgbench_tellers", all),
            asked("UPDATE pgbench_branches", all),
            asked("INSERT pgbench_history", all),
            asked("END", all),
        ])
    },
};

pub(super) const EXTENDED: Scenario = Scenario {
    name: "pgbench -M extended",
    start: start_postgres,
    drive: |server, dir| selects("extended", server, dir),
};

const PREPARED: Scenario = Scenario {
    name: "pgbench -M prepared",
    start: start_postgres,
    drive: |server, dir| selects("prepared", server, dir),
};

/// What psql is told to do, and what that is called.
const PSQL: &[(&str, &str)] = &[
    ("CREATE TABLE basket (id int, what text);", "CREATE TABLE basket"),
    ("INSERT INTO basket VALUES (1, 'a secret'), (2, 'another');", "INSERT basket"),
    ("SELECT what FROM basket WHERE id = 2;", "SELECT basket"),
    ("\\copy basket TO STDOUT", "COPY basket"),
    ("DELETE FROM basket;", "DELETE basket"),
    ("SELECT nothing FROM nowhere;", "SELECT nowhere"),
];

const BY_HAND: Scenario = Scenario {
    name: "psql",
    start: start_postgres,
    drive: |server, dir| {
        let script: String = PSQL.iter().map(|(line, _)| format!("{line}\n")).collect();
        fs::write(dir.join("script.sql"), script)?;
        said(postgres_client("psql", server)?.arg("-X").arg("-q").arg("-f").arg(dir.join("script.sql")))?;
        let mut asked: Vec<Asked> = PSQL.iter().map(|(_, name)| Asked::new(*name, 1)).collect();
        if let Some(wrong) = asked.last_mut() {
            wrong.attribute = Some(("db.response.status_code", "42P01".into()));
        }
        Ok(asked)
    },
};

pub(crate) fn start_redis(dir: &Path) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(machine::tool("redis-server")?);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(dir);
    command.stdout(Stdio::null());
    Server::listening(command, port)
}

pub(super) fn redis_benchmark(server: &Server, options: &[&str]) -> Result<Command> {
    let mut command = Command::new(machine::tool("redis-benchmark")?);
    command.args(["-p", &server.port.to_string()]).args(options);
    Ok(command)
}

/// How often the server has carried out a command.
fn redis_calls(server: &Server, command: &str) -> Result<usize> {
    let mut info = Command::new(machine::tool("redis-cli")?);
    let text = said(info.args(["-p", &server.port.to_string(), "info", "commandstats"]))?;
    number_after(&text, &format!("cmdstat_{command}:calls="))
}

/// SET and GET, as often as the server says; with the quantiles where commands are not sent many at a time.
fn redis(server: &Server, options: &[&str], is_timed: bool) -> Result<Vec<Asked>> {
    let text = said(redis_benchmark(server, options)?.args(["--csv", "-t", "set,get"]))?;
    let mut asked = Vec::new();
    for name in ["SET", "GET"] {
        // "SET", requests a second, then ms: average, least, p50, p95, p99, most.
        let row = text.lines().find(|line| line.starts_with(&format!("\"{name}\"")));
        let row = row.with_context(|| format!("no row {name} in:\n{text}"))?;
        let figures: Vec<f64> =
            row.split(',').filter_map(|word| word.trim_matches('"').parse().ok()).collect();
        let [_, _, _, p50, _, p99, _] = figures[..] else { anyhow::bail!("an odd row: {row}") };
        let count = redis_calls(server, &name.to_lowercase())?;
        let took = is_timed.then_some(Took { p50, p99 });
        asked.push(Asked::new(name, count).with("db.system.name", "redis").taking(took));
    }
    Ok(asked)
}

const REDIS: Scenario = Scenario {
    name: "redis-benchmark",
    start: start_redis,
    drive: |server, _| redis(server, &["-n", "5000", "-c", "20"], true),
};

pub(super) const REDIS_PIPELINED: Scenario = Scenario {
    name: "redis-benchmark -P 16",
    start: start_redis,
    drive: |server, _| redis(server, &["-n", "8000", "-c", "20", "-P", "16"], false),
};

fn start_mariadb(dir: &Path) -> Result<Server> {
    let port = free_port()?;
    let data = dir.join("data");
    let mut install = Command::new(machine::tool("mariadb-install-db")?);
    install.args([
        "--no-defaults",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--user=root",
    ]);
    said(install.arg(format!("--datadir={}", data.display())))?;
    let mut command = Command::new(machine::tool("mariadbd")?);
    command.args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-log-bin"]);
    command.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
    command.arg(format!("--socket={}", dir.join("socket").display())).stderr(Stdio::null());
    let server = Server::listening(command, port)?;
    let mut create = Command::new(machine::tool("mariadb")?);
    create.args(["--no-defaults", "-h127.0.0.1", "-uroot", "-e", "CREATE DATABASE sbtest"]);
    said(create.arg(format!("-P{port}")))?;
    sysbench(&server, &["oltp_read_write", "prepare"])?;
    Ok(server)
}

fn sysbench(server: &Server, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(machine::tool("sysbench")?);
    command.args(["--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-user=root", "--mysql-ssl=off"]);
    command.args(["--tables=1", "--table-size=1000", "--time=0", "--percentile=99"]);
    said(command.arg(format!("--mysql-port={}", server.port)).args(arguments))
}

/// Reads, and transactions of everything, by statements in text and by prepared ones.
pub(super) const MARIADB: Scenario = Scenario {
    name: "sysbench on MariaDB",
    start: start_mariadb,
    drive: |server, _| {
        let run = |arguments: &[&str]| -> Result<[usize; 3]> {
            let text = sysbench(server, arguments)?;
            let number = |name| number_after(&text, name);
            Ok([number("read:")?, number("write:")?, number("other:")?])
        };
        let [text_reads, ..] =
            run(&["oltp_point_select", "--threads=4", "--events=1000", "--db-ps-mode=disable", "run"])?;
        let [reads, ..] = run(&["oltp_point_select", "--threads=4", "--events=1000", "run"])?;
        // By one thread: others' deletes make inserts fail, and those are asked again.
        let [more, writes, other] = run(&["oltp_read_write", "--events=60", "run"])?;
        let asked = |name: &str, count| Asked::new(name, count).with("db.system.name", "mariadb");
        Ok(vec![
            asked("SELECT sbtest1", text_reads + reads + more),
            // Of four writes two are updates.
            asked("UPDATE sbtest1", writes / 2),
            asked("DELETE sbtest1", writes / 4),
            asked("INSERT sbtest1", writes / 4),
            asked("BEGIN", other / 2),
            asked("COMMIT", other / 2),
        ])
    },
};

#[test]
fn postgres_by_simple_queries() -> Result<()> {
    play(&SIMPLE)
}

#[test]
fn postgres_by_extended_queries() -> Result<()> {
    play(&EXTENDED)
}

#[test]
fn postgres_by_prepared_statements() -> Result<()> {
    play(&PREPARED)
}

#[test]
fn postgres_by_psql() -> Result<()> {
    play(&BY_HAND)
}

#[test]
fn redis_one_command_at_a_time() -> Result<()> {
    play(&REDIS)
}

#[test]
fn redis_in_pipelines() -> Result<()> {
    play(&REDIS_PIPELINED)
}

#[test]
fn mariadb() -> Result<()> {
    play(&MARIADB)
}
