//! As many open connections as a busy proxy has.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::server::{free_port, nginx_command, open_to_all};
use descry_tests::workload::{Workload, eventually};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::requests::Report;

const CONNECTIONS: usize = 10_000;
/// What descry may use (bytes), all in all.
const MAX_RSS: u64 = 64_000_000;
/// Requests on each connection.
const ROUNDS: usize = 2;

/// Asks for a page and waits for it.
fn ask(stream: &mut TcpStream) -> Result<()> {
    const END: &[u8] = b"a page";
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: many\r\n\r\n")?;
    let mut said = Vec::new();
    while !said.ends_with(END) {
        let mut bytes = [0; 1024];
        let length = stream.read(&mut bytes)?;
        ensure!(length > 0, "nginx closed a connection after {:?}", String::from_utf8_lossy(&said));
        said.extend_from_slice(bytes.get(..length).unwrap_or_default());
    }
    Ok(())
}

#[test]
fn ten_thousand_open_connections() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let dir = tempfile::tempdir()?;
    open_to_all(dir.path())?;
    fs::write(dir.path().join("page"), "a page")?;
    let port = free_port()?;
    let server = Workload::spawn(nginx_command(dir.path(), port, "", "access_log off;")?)?;
    eventually("nginx to listen", || Ok(TcpStream::connect(("127.0.0.1", port)).ok()))?;
    let file = dir.path().join("requests.json");
    let descry = Descry::new("requests")?.pid(server.first_child()?).args(["--stats", "json", "-d", "200s"]);
    let mut descry = descry.output(&file).spawn()?;
    descry.watching_sockets()?;
    let mut streams = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(("127.0.0.1", port)))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("{CONNECTIONS} connections need as many open files (ulimit -Hn)"))?;
    for _ in 0..ROUNDS {
        streams.iter_mut().try_for_each(ask)?;
    }
    descry.signal(Signal::SIGINT)?;
    let outcome = descry.wait()?;
    drop(streams);
    let last = outcome.stderr.lines().last().context("descry said nothing")?;
    let stats: serde_json::Value = serde_json::from_str(last)?;
    let rss = stats["peak_rss_bytes"].as_u64().context("no memory is told")?;
    eprintln!("{CONNECTIONS} connections: {:.1} MB at most", rss as f64 / 1e6);
    let report = Report::read(&outcome, &file)?;
    let served = report.of("server", "GET /page");
    let served = served.filter(|span| span["attributes"]["http.response.status_code"] == 200).count();
    ensure!(served == CONNECTIONS * ROUNDS, "{served} spans; lost: {}", report.summary["lost"]);
    ensure!(rss < MAX_RSS, "{:.1} MB", rss as f64 / 1e6);
    Ok(())
}
