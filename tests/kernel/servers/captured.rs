//! `descry decode` on what tcpdump captured of the traffic that descry watched: the same spans, also when segments come
//! late, twice, in pieces, or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::pcap::Capture;
use descry_tests::server::open_to_all;
use descry_tests::workload::as_pid;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::{Scenario, Watching, databases, http, others};
use crate::requests::Report;

/// Attributes that tell which connection a span is of.
const CLIENT_PORT: &str = "client.port";

/// The spans of each connection by the client's port, without what two observers see differently: ids and times.
type Connections = BTreeMap<u64, Vec<String>>;

/// What a report says of the server's side.
fn connections(report: &Report, port: u16) -> Connections {
    let mut connections = Connections::new();
    for span in &report.spans {
        let attributes = &span["attributes"];
        if span["kind"] != "server" || attributes["server.port"] != port {
            continue;
        }
        let line = json!({ "name": span["name"], "status": span["status"], "attributes": attributes });
        let client = attributes[CLIENT_PORT].as_u64().unwrap_or_default();
        connections.entry(client).or_default().push(line.to_string());
    }
    // In the order in which they end, which answers on one connection share.
    connections
}

/// tcpdump on the loopback device.
struct Tcpdump(Child);

impl Tcpdump {
    fn start(port: u16, file: &Path) -> Result<Self> {
        let mut command = Command::new(machine::tool("tcpdump")?);
        // Whole packets, a large buffer, written as they come, by whoever may write here.
        command.args(["-i", "lo", "-s", "0", "-B", "65536", "-U", "-Z", "root", "-n", "-w"]).arg(file);
        command.args(["port", &port.to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("tcpdump cannot be started")?;
        let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        let started = Self(child);
        lines
            .find(|line| line.as_ref().map_or(true, |line| line.contains("listening on")))
            .context("tcpdump ended")??;
        // What it says at its end must not break the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(started)
    }

    /// Waits until it has written what it saw.
    fn stop(mut self) -> Result<()> {
        // It hands packets over by the second.
        std::thread::sleep(std::time::Duration::from_millis(1200));
        kill(as_pid(self.0.id())?, Signal::SIGINT)?;
        ensure!(self.0.wait()?.success(), "tcpdump failed");
        Ok(())
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What `descry decode` makes of a capture.
fn decode(capture: &Capture, dir: &Path, name: &str) -> Result<Report> {
    let (file, out) = (dir.join(format!("{name}.pcap")), dir.join(format!("{name}.json")));
    std::fs::write(&file, capture.bytes())?;
    let descry = Descry::new("decode")?.args(["--format", "json"]).output(&out).args([&file]);
    Report::read(&descry.succeed()?, &out)
}

/// Plays a scenario that is captured by both, and decodes what tcpdump has of it.
fn compare(scenario: &Scenario) -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    open_to_all(dir)?;
    let server = (scenario.start)(dir)?;
    let file = dir.join("all.pcap");
    let tcpdump = Tcpdump::start(server.port, &file)?;
    let watching = Watching::start()?;
    (scenario.drive)(&server, dir)?;
    let (live, outcome) = watching.stop()?;
    tcpdump.stop()?;
    ensure!(live.summary["lost"] == json!({}), "lost: {}\n{}", live.summary["lost"], outcome.stderr);
    let live = connections(&live, server.port);
    let capture = Capture::read(&std::fs::read(&file)?)?;

    let decoded = decode(&capture, dir, "same")?;
    same(scenario.name, &live, &connections(&decoded, server.port))?;
    // Nothing is missing from these, only moved.
    for (name, changed) in [
        ("in pieces", capture.in_pieces(7)),
        ("out of order", capture.out_of_order()),
        ("twice", capture.twice()),
        ("in pieces, out of order and twice", capture.in_pieces(50).out_of_order().twice()),
    ] {
        let decoded = decode(&changed, dir, "changed")?;
        same(&format!("{}, {name}", scenario.name), &live, &connections(&decoded, server.port))?;
    }
    for every in [10, 100] {
        let (holed, dropped) = capture.without_one_of(every);
        let decoded = decode(&holed, dir, "holed")?;
        let what = format!("{}, without {dropped} segments", scenario.name);
        none_wrong(&what, &live, &connections(&decoded, server.port))?;
        let gaps = decoded.summary["lost"]["tcp_gap"].as_u64().unwrap_or_default();
        ensure!(dropped == 0 || gaps > 0, "{what}: no gap is told: {}", decoded.summary["lost"]);
    }
    Ok(())
}

/// Both have the same spans on the same connections.
fn same(what: &str, live: &Connections, decoded: &Connections) -> Result<()> {
    let total = |connections: &Connections| connections.values().map(Vec::len).sum::<usize>();
    for (port, spans) in live {
        let others = decoded.get(port).map_or(&[][..], Vec::as_slice);
        let (mut spans, mut others) = (spans.clone(), others.to_vec());
        spans.sort();
        others.sort();
        let differs = spans.iter().zip(&others).find(|(one, other)| one != other);
        ensure!(
            spans == others,
            "{what}: {} spans live and {} decoded on port {port}; the first that differ: {differs:?}",
            spans.len(),
            others.len()
        );
    }
    ensure!(total(live) > 100, "{what}: only {} spans", total(live));
    ensure!(total(live) == total(decoded), "{what}: {} spans live, {} decoded", total(live), total(decoded));
    Ok(())
}

/// What is there in spite of gaps was there: no answer went to another's request. Those whose answer may be lost say so.
fn none_wrong(what: &str, live: &Connections, decoded: &Connections) -> Result<()> {
    let (mut whole, mut all) = (0, 0);
    for (port, spans) in decoded {
        let asked = live.get(port).map_or(&[][..], Vec::as_slice);
        let mut left =
            asked.iter().map(|span| Ok(serde_json::from_str(span)?)).collect::<Result<Vec<Value>>>()?;
        all += left.len();
        let mut poorer = Vec::new();
        for span in spans {
            let span: Value = serde_json::from_str(span)?;
            if !span["attributes"]["descry.unanswered"].is_null() {
                continue;
            }
            whole += 1;
            match left.iter().position(|other| *other == span) {
                Some(place) => drop(left.remove(place)),
                None => poorer.push(span),
            }
        }
        // After those that are whole, so that none of these takes the place of one.
        for span in poorer {
            let place = left.iter().position(|other| knows_less(&span, other));
            left.remove(place.with_context(|| format!("{what}: on port {port} nobody asked {span}"))?);
        }
    }
    eprintln!("{what}: {whole} of {all} spans are whole");
    ensure!(whole > 0, "{what}: none of {all} spans is whole");
    Ok(())
}

/// Whether a span is another one, of which something was told in a segment that is missing: the database that is used,
/// what a statement's name stands for, a header that an index stands for. A call whose path is not known is a request of
/// HTTP.
fn knows_less(span: &Value, other: &Value) -> bool {
    let (Some(known), Some(all)) = (span["attributes"].as_object(), other["attributes"].as_object()) else {
        return false;
    };
    let is_call = all.contains_key("rpc.method");
    let is_same = |(name, value): (&String, &Value)| {
        all.get(name)
            .map_or(is_call && (name.starts_with("http.") || name.starts_with("url.")), |it| it == value)
    };
    (is_call || known.len() < all.len()) && known.iter().all(is_same)
}

#[test]
fn http1() -> Result<()> {
    compare(&http::NGINX)
}

#[test]
fn http2() -> Result<()> {
    compare(&http::NGINX_H2C)
}

#[test]
fn grpc() -> Result<()> {
    compare(&others::GRPC)
}

#[test]
fn postgres() -> Result<()> {
    compare(&databases::EXTENDED)
}

#[test]
fn redis() -> Result<()> {
    compare(&databases::REDIS_PIPELINED)
}

#[test]
fn mariadb() -> Result<()> {
    compare(&databases::MARIADB)
}
