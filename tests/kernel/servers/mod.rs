//! `descry requests` against servers and clients that others wrote: it has to see what the client counts.
//!
//! A [`Scenario`] starts a server and drives it with a client that counts, and often times, for itself. Both are watched
//! from before the client's first byte to after its last one, so the number of spans of either side is the client's, and
//! their quantiles are the client's too. Those are compared with `DESCRY_TEST_QUANTILES=1` only, for they want a quiet machine.

mod captured;
mod databases;
mod http;
mod middle;
mod others;
mod rust;
mod secure;

pub(crate) use databases::{start_postgres, start_redis};

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::{Descry, Outcome, Running};
use descry_tests::machine;
use descry_tests::workload::{Workload, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::requests::{Report, milliseconds};

/// How far a quantile may be off: this part of it, or this long (ms), whichever is more.
const NEAR: (f64, f64) = (0.05, 0.05);

/// A server, and a client of it.
pub(super) struct Scenario {
    /// For messages.
    name: &'static str,
    /// Starts the server, with files of its own in the directory.
    start: fn(&Path) -> Result<Server>,
    /// Runs the client to its end.
    drive: fn(&Server, &Path) -> Result<Vec<Asked>>,
}

/// A server that listens on a port of 127.0.0.1; it ends with this.
pub(crate) struct Server {
    port: u16,
    /// It speaks TLS.
    is_secure: bool,
    processes: Vec<Workload>,
    /// What asks the first of them to clean up after itself; without it is killed.
    shutdown: Option<Signal>,
}

impl Server {
    /// Starts a command, and waits until somebody listens on the port.
    fn listening(command: Command, port: u16) -> Result<Self> {
        let name = format!("{command:?} to listen on port {port}");
        let process = Workload::spawn(command)?;
        eventually(&name, || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok()))?;
        Ok(Self { port, is_secure: false, processes: vec![process], shutdown: None })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn secure(mut self) -> Self {
        self.is_secure = true;
        self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((signal, process)) = self.shutdown.zip(self.processes.first_mut()) {
            process.signal(signal).ok();
            process.wait().ok();
        }
    }
}

/// What a client says that it asked for.
pub(super) struct Asked {
    /// The name that the spans should have.
    name: String,
    /// An attribute that they should have.
    attribute: Option<(&'static str, Value)>,
    count: usize,
    /// How long the client says it took (ms).
    took: Option<Took>,
}

/// Quantiles by a client's own clock (ms).
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    p50: f64,
    p99: f64,
}

impl Took {
    /// Those of some durations.
    fn of(mut durations: Vec<f64>) -> Option<Self> {
        durations.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let rank = (share * durations.len() as f64).ceil() as usize;
            durations.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { p50: quantile(0.5)?, p99: quantile(0.99)? })
    }

    fn is_near(self, other: Self) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() <= NEAR.1.max(b * NEAR.0);
        near(self.p50, other.p50) && near(self.p99, other.p99)
    }
}

impl Asked {
    fn new(name: impl Into<String>, count: usize) -> Self {
        Self { name: name.into(), attribute: None, count, took: None }
    }

    fn with(self, name: &'static str, value: impl Into<Value>) -> Self {
        Self { attribute: Some((name, value.into())), ..self }
    }

    fn taking(self, took: Option<Took>) -> Self {
        Self { took, ..self }
    }

    /// The spans of a side that should be these.
    fn spans<'a>(&'a self, report: &'a Report, port: u16, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        report.of(kind, &self.name).filter(move |span| {
            let attributes = &span["attributes"];
            attributes["server.port"].as_u64().is_none_or(|other| other == u64::from(port))
                && self.attribute.as_ref().is_none_or(|(name, value)| attributes[name] == *value)
        })
    }

    fn check(&self, report: &Report, port: u16) -> Result<()> {
        for kind in ["server", "client"] {
            let spans: Vec<&Value> = self.spans(report, port, kind).collect();
            let Self { name, attribute, count, .. } = self;
            ensure!(
                spans.len() == *count,
                "{} spans {kind} {name} {attribute:?} instead of {count}; there are\n{}",
                spans.len(),
                report.names()
            );
            if let Some(odd) = spans.iter().find(|span| !span["attributes"]["descry.unanswered"].is_null()) {
                anyhow::bail!("without an answer: {odd}");
            }
        }
        let Some(told) = self.took else { return Ok(()) };
        if !compares_quantiles() {
            return Ok(());
        }
        let seen = Took::of(self.spans(report, port, "client").map(milliseconds).collect());
        let seen = seen.with_context(|| format!("no spans {}", self.name))?;
        eprintln!("{}: the client says {told:.3?}, the spans {seen:.3?}", self.name);
        ensure!(seen.is_near(told), "{}: the client says {told:?}, the spans {seen:?}", self.name);
        Ok(())
    }
}

/// A `descry requests` that watches this process and all that it starts.
struct Watching {
    descry: Running,
    dir: TempDir,
}

impl Watching {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let own = std::process::id();
        let descry = Descry::new("requests")?.pid(own).args(["--follow", "-d", "10m", "--stats", "json"]);
        let mut descry = descry.output(&dir.path().join("spans.json")).spawn()?;
        descry.watching_sockets()?;
        Ok(Self { descry, dir })
    }

    fn stop(self) -> Result<(Report, Outcome)> {
        self.descry.signal(Signal::SIGINT)?;
        let outcome = self.descry.wait()?;
        ensure!(outcome.code == Some(0), "descry ended with {:?}:\n{}", outcome.code, outcome.stderr);
        let report = Report::read(&outcome, &self.dir.path().join("spans.json"))?;
        Ok((report, outcome))
    }
}

/// Plays a scenario under descry, and compares what both saw.
fn play(scenario: &Scenario) -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    descry_tests::server::open_to_all(dir.path())?;
    let server = (scenario.start)(dir.path()).with_context(|| format!("{} does not start", scenario.name))?;
    let watching = Watching::start()?;
    let asked = (scenario.drive)(&server, dir.path()).context("the client failed")?;
    let (report, outcome) = watching.stop()?;
    let lost = &report.summary["lost"];
    ensure!(*lost == serde_json::json!({}), "lost: {lost}\n{}", outcome.stderr);
    asked.iter().try_for_each(|asked| asked.check(&report, server.port))
}

/// Whether quantiles are to be compared too: a client that others keep from running sees an answer later than its kernel
/// does, so that wants a quiet machine.
fn compares_quantiles() -> bool {
    std::env::var("DESCRY_TEST_QUANTILES").is_ok_and(|value| value == "1")
}

/// Runs a command to its good end, and gives what it wrote to its standard output and error.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "{command:?} failed:\n{text}");
    Ok(text)
}

/// The number behind some words.
fn number_after<T: std::str::FromStr>(text: &str, words: &str) -> Result<T> {
    let number = text.split_once(words).and_then(|(_, behind)| {
        let first = behind.trim_start().split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        first.parse().ok()
    });
    number.with_context(|| format!("no number behind {words:?} in:\n{text}"))
}
