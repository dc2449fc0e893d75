//! Peers that send garbage, or without end, while others ask as usual: descry stays small, and right about the others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::{garbage, machine};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::requests::Report;

/// What descry may use (bytes): 32 MiB of it are the ring.
const MAX_RSS: u64 = 160 << 20;
/// A flood (bytes).
const FLOOD: usize = 100 << 20;
/// Connections that send half a request and then nothing.
const HALF_OPEN: usize = 300;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Answers what is a whole request for `/good`, and reads whatever else comes.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let length = stream.read(&mut bytes)?;
        let said = bytes.get(..length).unwrap_or_default();
        if said.is_empty() {
            return Ok(());
        }
        if said.starts_with(b"GET /good ") && said.ends_with(b"\r\n\r\n") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    }
}

/// A server in this process; its threads end with their connections.
fn server() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn ask(address: SocketAddr, count: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let mut answer = [0; 40];
    for _ in 0..count {
        stream.write_all(b"GET /good HTTP/1.1\r\nHost: good\r\n\r\n")?;
        stream.read_exact(&mut answer)?;
    }
    Ok(())
}

/// Says something, and then the same again and again.
fn flood(address: SocketAddr, first: &[u8], part: &[u8], total: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(first)?;
    let many = part.repeat((60_000 / part.len()).max(1));
    for _ in 0..total / many.len() {
        stream.write_all(&many)?;
    }
    Ok(())
}

#[test]
fn floods_and_garbage() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let address = server()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let descry = Descry::new("requests")?.pid(std::process::id()).args(["--stats", "json", "-d", "100s"]);
    let mut descry = descry.output(&file).spawn()?;
    descry.watching_sockets()?;
    ask(address, 10)?;
    let half: Vec<TcpStream> = (0..HALF_OPEN)
        .map(|_| {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /half")?;
            Ok(stream)
        })
        .collect::<std::io::Result<_>>()?;
    ask(address, 10)?;
    flood(address, b"GET /headers HTTP/1.1\r\n", b"X-Padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", FLOOD)?;
    // A header block that goes on in CONTINUATION frames of 5 bytes each.
    let headers = [PREFACE, b"\0\0\x03\x01\x01\0\0\0\x01\x82\x84\x86"].concat();
    flood(address, &headers, b"\0\0\x05\x09\0\0\0\0\x01\0\x01x\x01a", FLOOD / 20)?;
    // The openings of HTTP/1, HTTP/2, PostgreSQL, Redis and DNS, and none.
    for opening in [
        b"GET /garbage HTTP/1.1\r\n".as_slice(),
        PREFACE,
        b"\0\0\0\x10\0\x03\0\0user\0me\0\0",
        b"*1\r\n$4\r\nPING\r\n",
        b"\0\x11\0\x01\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01",
        b"",
    ] {
        flood(address, opening, &garbage::bytes(60_000), FLOOD / 20)?;
    }
    ask(address, 10)?;
    drop(half);
    descry.signal(Signal::SIGINT)?;
    let outcome = descry.wait()?;
    ensure!(outcome.code == Some(0), "exit {:?}:\n{}", outcome.code, outcome.stderr);
    ensure!(!outcome.stderr.contains("panicked"), "a panic:\n{}", outcome.stderr);
    let last = outcome.stderr.lines().last().context("descry said nothing")?;
    let stats: Value = serde_json::from_str(last)?;
    let rss = stats["peak_rss_bytes"].as_u64().context("no memory is told")?;
    ensure!(rss < MAX_RSS, "{} MiB", rss >> 20);
    let report = Report::read(&outcome, &file)?;
    for kind in ["server", "client"] {
        let good = report.of(kind, "GET /good");
        let good = good.filter(|span| span["attributes"]["http.response.status_code"] == 200).count();
        ensure!(
            good == 30,
            "{good} {kind} spans instead of 30; lost: {}; there are\n{}",
            report.summary["lost"],
            report.names()
        );
    }
    let answered =
        report.spans.iter().filter(|span| !span["attributes"]["http.response.status_code"].is_null()).count();
    ensure!(answered == 60, "{answered} requests were answered instead of 60");
    Ok(())
}
