//! `descry requests` inside of real services: what each asks belongs to the request that it asks for.
//!
//! Every path carries a number, and whatever is asked for its sake carries it too, where descry tells it: in a name of a
//! query, the number of a database, a method.

mod joined;
mod unanswered;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_tests::compile;
use descry_tests::descry::{Descry, Outcome};
use descry_tests::machine;
use descry_tests::server::{free_port, open_to_all, postgres_command};
use descry_tests::workload::{Workload, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Databases of Redis that the service tells apart.
const DATABASES: u64 = 1000;

/// What the services ask.
struct Stores {
    postgres: Workload,
    postgres_port: u16,
    _redis: Workload,
    redis_port: u16,
    _dir: TempDir,
}

impl Stores {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        open_to_all(dir.path())?;
        let (postgres_port, redis_port) = (free_port()?, free_port()?);
        let data = dir.path().join("postgres");
        fs::create_dir(&data)?;
        open_to_all(&data)?;
        let port = format!("port={postgres_port}");
        let settings = ["listen_addresses=127.0.0.1", &port, "max_connections=60"];
        let postgres = Workload::spawn(postgres_command(&data, &settings)?)?;
        let mut command = Command::new(machine::tool("redis-server")?);
        command.args(["--port", &redis_port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--databases", &DATABASES.to_string()]).current_dir(dir.path());
        command.stdout(std::process::Stdio::null());
        let redis = Workload::spawn(command)?;
        for port in [postgres_port, redis_port] {
            listens(port)?;
        }
        eventually("PostgreSQL to be ready", || {
            let mut ready = Command::new(machine::tool("postgres")?.with_file_name("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &postgres_port.to_string()]);
            Ok(ready.status()?.success().then_some(()))
        })?;
        Ok(Self { postgres, postgres_port, _redis: redis, redis_port, _dir: dir })
    }

    /// The service on axum, and its port.
    fn axum(&self, program: &Path) -> Result<(Workload, u16)> {
        let mut command = Command::new(program);
        command.arg(format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.postgres_port));
        command.arg(format!("redis://127.0.0.1:{}/", self.redis_port));
        told(command)
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        // Fast shutdown, so that it gives back its shared memory.
        self.postgres.signal(Signal::SIGINT).ok();
        self.postgres.wait().ok();
    }
}

/// A program that tells its port.
fn told(command: Command) -> Result<(Workload, u16)> {
    let (workload, line) = Workload::spawn_telling(command)?;
    let port = line.parse().with_context(|| format!("{line:?} is no port"))?;
    listens(port)?;
    Ok((workload, port))
}

fn listens(port: u16) -> Result<()> {
    eventually("a server to listen", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok()))?;
    Ok(())
}

/// What `descry requests` says of processes while something is done.
fn seen(pids: &[u32], options: &[&str], act: impl FnOnce() -> Result<()>) -> Result<(Vec<Span>, Outcome)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let mut descry = Descry::new("requests")?.output(&file).args(options).args(["-d", "100s"]);
    for pid in pids {
        descry = descry.pid(*pid);
    }
    let mut running = descry.spawn()?;
    running.watching_sockets()?;
    act()?;
    running.signal(Signal::SIGINT)?;
    let outcome = running.wait()?;
    let text = fs::read_to_string(&file).with_context(|| outcome.stderr.clone())?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let summary = lines.iter().find(|line| line["type"] == "summary").context("no summary")?;
    ensure!(summary["lost"] == serde_json::json!({}), "lost: {}", summary["lost"]);
    Ok((lines.into_iter().filter(|line| line["type"] == "span").map(Span).collect(), outcome))
}

/// A line of `descry requests --format json`.
struct Span(Value);

impl Span {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    fn attribute(&self, name: &str) -> &str {
        self.0["attributes"][name].as_str().unwrap_or_default()
    }

    fn is_server(&self) -> bool {
        self.0["kind"] == "server"
    }

    fn pid(&self) -> u64 {
        self.0["resource"]["process.pid"].as_u64().unwrap_or_default()
    }

    /// The number in its path.
    fn number(&self) -> Option<u64> {
        self.attribute("url.path").rsplit('/').next()?.parse().ok()
    }

    /// The word before a number, and the number, that stand in a query, a method, a path or the number of a database.
    fn truth(&self) -> Option<(String, u64)> {
        if self.attribute("db.system.name") == "redis" {
            if self.attribute("db.operation.name") != "INCR" {
                return None;
            }
            let number = self.attribute("db.namespace").parse().ok()?;
            return Some(("redis".to_owned(), number));
        }
        if let Some(number) = self.number() {
            return Some(("path".to_owned(), number));
        }
        let method = self.attribute("rpc.method");
        if let Some(number) = method.rsplit("Order").next().filter(|_| !method.is_empty()) {
            return Some(("rpc".to_owned(), number.parse().ok()?));
        }
        let name = self.attribute("db.query.text").split(" AS ").nth(1)?;
        let (word, number) = name.trim().rsplit_once('_')?;
        Some((word.to_ascii_lowercase(), number.parse().ok()?))
    }
}

fn orders() -> Result<std::path::PathBuf> {
    compile::rust("orders")
}
