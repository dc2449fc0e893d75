//! Connects that fail are spans, under the request that made them; what TCP did is told by peer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::workload::eventually;
use serde_json::Value;

/// A network of its own, in which 10.9.0.2 is a machine that takes everything and answers nothing. The first connect is
/// left to the kernel, the second is given up.
const SILENCE: &str = "
set -e
ip link set lo up
ip link add v0 type veth peer name v1
ip address add 10.9.0.1/24 dev v0
ip link set v0 up
ip link set v1 up
ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0
echo 1 > /proc/sys/net/ipv4/tcp_syn_retries
bash -c 'exec 3<>/dev/tcp/10.9.0.2/80' || true
timeout 0.3 bash -c 'exec 3<>/dev/tcp/10.9.0.2/81' || true
";

/// Answers three requests, each after a connect that is refused.
const PROXY: &str = "
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            socket.create_connection(('127.0.0.1', int(sys.argv[2])))
        except OSError:
            pass
        self.send_response(502)
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
for _ in range(3):
    server.handle_request()
";

/// The spans, and the summary.
fn lines(file: &Path) -> Result<(Vec<Value>, Value)> {
    let text = std::fs::read_to_string(file)?;
    let mut spans = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let summary = spans.pop().context("nothing was written")?;
    Ok((spans, summary))
}

/// What TCP did with a peer.
fn peer<'a>(summary: &'a Value, name: &str) -> Result<&'a Value> {
    let rows = summary["tcp"].as_array().context("no rows of TCP")?;
    rows.iter().find(|row| row["peer"] == name).with_context(|| format!("nothing of {name}: {rows:?}"))
}

fn closed_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[test]
fn connects_that_succeed_and_that_are_refused() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (open, closed) = (listener.local_addr()?.port(), closed_port()?);
    let script = format!(
        "for i in 1 2 3 4 5; do exec 3<>/dev/tcp/127.0.0.1/{open}; echo hello >&3; exec 3>&-; done
         for i in 1 2 3; do (exec 3<>/dev/tcp/127.0.0.1/{closed}) 2>/dev/null; done; true"
    );
    let outcome = Descry::new("requests")?.output(&file).args(["--", "bash", "-c", &script]).succeed()?;
    let (spans, summary) = lines(&file)?;
    let refused: Vec<&Value> = spans.iter().filter(|span| span["name"] == "connect").collect();
    ensure!(refused.len() == 3 && spans.len() == 3, "{spans:?}\n{}", outcome.stderr);
    for span in refused {
        let attributes = &span["attributes"];
        ensure!(span["kind"] == "client" && span["status"] == "error", "{span}");
        ensure!(attributes["error.type"] == "ECONNREFUSED" && attributes["server.port"] == closed, "{span}");
        ensure!(span["parent_span_id"].is_null(), "{span}");
    }
    let row = peer(&summary, &format!("127.0.0.1:{open}"))?;
    ensure!(row["connects"] == 5 && row["failed"] == 0, "{row}");
    ensure!(row["connect_p50_ns"].as_u64() > Some(1000) && row["rtt_p50_ns"].as_u64() > Some(1000), "{row}");
    let row = peer(&summary, &format!("127.0.0.1:{closed}"))?;
    ensure!(row["connects"] == 0 && row["failed"] == 3, "{row}");
    Ok(())
}

#[test]
fn connects_that_nobody_answers() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let command = ["--", "unshare", "-n", "bash", "-c", SILENCE];
    let outcome = Descry::new("requests")?.output(&file).args(command).succeed()?;
    let (spans, summary) = lines(&file)?;
    let of = |port: u64| {
        let span = spans.iter().find(|span| span["attributes"]["server.port"] == port);
        span.with_context(|| format!("no connect to port {port}: {spans:?}\n{}", outcome.stderr))
    };
    let (timed_out, given_up) = (of(80)?, of(81)?);
    ensure!(timed_out["attributes"]["error.type"] == "ETIMEDOUT", "{timed_out}");
    ensure!(given_up["attributes"]["error.type"] == "abandoned", "{given_up}");
    let time = |span: &Value| -> Option<u64> {
        span["end_unix_nano"].as_u64()?.checked_sub(span["start_unix_nano"].as_u64()?)
    };
    // A SYN is sent again after a second; kernels since 6.5 send one more before they give up.
    ensure!(time(timed_out) > Some(1_000_000_000), "{timed_out}");
    ensure!((250_000_000..900_000_000).contains(&time(given_up).unwrap_or(0)), "{given_up}");
    let row = peer(&summary, "10.9.0.2:80")?;
    ensure!(row["failed"] == 1 && (1..=2).contains(&row["retransmits"].as_u64().unwrap_or(0)), "{row}");
    Ok(())
}

#[test]
fn a_refused_connect_is_below_its_request() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let (port, closed) = (closed_port()?, closed_port()?);
    let (port_text, closed_text) = (port.to_string(), closed.to_string());
    let descry = Descry::new("requests")?
        .output(&file)
        .args(["--", "python3", "-c", PROXY, &port_text, &closed_text])
        .spawn()?;
    for _ in 0..3 {
        let mut stream =
            eventually("the proxy to listen", || Ok(TcpStream::connect(("127.0.0.1", port)).ok()))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n")?;
        stream.read_to_end(&mut Vec::new())?;
    }
    let outcome = descry.wait()?;
    let (spans, _) = lines(&file)?;
    let servers: Vec<&Value> =
        spans.iter().filter(|span| span["kind"] == "server").map(|span| &span["span_id"]).collect();
    let connects: Vec<&Value> = spans.iter().filter(|span| span["name"] == "connect").collect();
    ensure!(servers.len() == 3 && connects.len() == 3, "{spans:?}\n{}", outcome.stderr);
    ensure!(
        connects.iter().all(|span| servers.contains(&&span["parent_span_id"])),
        "a connect that is below no request: {spans:?}"
    );
    Ok(())
}
