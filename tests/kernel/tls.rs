//! `descry requests` and TLS: spans of the plaintext, as many as the clients asked for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use descry_tests::certificate::Certificate;
use descry_tests::descry::Descry;
use descry_tests::server::free_port;
use descry_tests::{compile, machine};
use serde_json::{Value, json};

/// What was seen: how many spans of each kind, first part of the path, status and version of HTTP.
type Seen = BTreeMap<(String, String, u64, String), usize>;

/// Runs a command line under `descry requests`; checks what is true of every span.
fn seen(dir: &Path, command_line: &[&str]) -> Result<Seen> {
    let file = dir.join("requests.json");
    let outcome = Descry::new("requests")?.output(&file).args(["--"]).args(command_line).succeed()?;
    let text = std::fs::read_to_string(&file)?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let mut seen = Seen::new();
    for line in &lines {
        let attributes = &line["attributes"];
        if line["type"] != "span" {
            ensure!(line["lost"] == json!({}), "lost: {}\n{}", line["lost"], outcome.stderr);
            continue;
        }
        let text = |name: &str| attributes[name].as_str().unwrap_or_default().to_owned();
        ensure!(text("url.scheme") == "https" && text("tls.protocol.name") == "tls", "{line}");
        ensure!(text("http.request.method") == "GET" && attributes["server.port"].is_u64(), "{line}");
        let path = text("url.path");
        let first = path.split('/').nth(1).unwrap_or_default().to_owned();
        let kind = line["kind"].as_str().unwrap_or_default().to_owned();
        let status = attributes["http.response.status_code"].as_u64().unwrap_or_default();
        *seen.entry((kind, first, status, text("network.protocol.version"))).or_default() += 1;
    }
    Ok(seen)
}

fn expected(rows: &[(&str, &str, u64, &str, usize)]) -> Seen {
    let key = |kind: &str, path: &str, status, version: &str| {
        (kind.to_owned(), path.to_owned(), status, version.to_owned())
    };
    rows.iter()
        .map(|(kind, path, status, version, count)| (key(kind, path, *status, version), *count))
        .collect()
}

fn check(seen: &Seen, rows: &[(&str, &str, u64, &str, usize)]) -> Result<()> {
    let expected = expected(rows);
    ensure!(*seen == expected, "{seen:#?}\ninstead of\n{expected:#?}");
    Ok(())
}

/// nginx, and a client of it.
fn nginx(client: &dyn Fn(&str) -> Vec<String>) -> Result<Seen> {
    let certificate = Certificate::new()?;
    let (dir, port) = (certificate.dir().to_string_lossy().into_owned(), free_port()?);
    let script = compile::script("tls.sh");
    let mut command_line =
        vec!["sh".to_owned(), script.to_string_lossy().into_owned(), dir, port.to_string()];
    machine::tool("nginx")?;
    command_line.extend(client(&format!("https://127.0.0.1:{port}")));
    let words: Vec<&str> = command_line.iter().map(String::as_str).collect();
    seen(certificate.dir(), &words)
}

#[test]
fn nginx_and_curl() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let curl = |url: &str| {
            let words = ["curl", "-sk", option, "-o", "/dev/null"].map(str::to_owned).into_iter();
            words.chain([format!("{url}/item/[1-30]"), format!("{url}/missing/[1-5]")]).collect()
        };
        let rows = [
            ("server", "item", 200, version, 30),
            ("client", "item", 200, version, 30),
            ("server", "missing", 404, version, 5),
            ("client", "missing", 404, version, 5),
        ];
        check(&nginx(&curl)?, &rows).context(option)?;
    }
    Ok(())
}

#[test]
fn many_streams_over_tls() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let h2load = machine::tool("h2load")?;
    let load = |url: &str| {
        let words = [&*h2load.to_string_lossy(), "-n", "5000", "-c", "10", "-m", "100"].map(str::to_owned);
        words.into_iter().chain([format!("{url}/item/7")]).collect()
    };
    let rows = [("server", "item", 200, "2", 5000), ("client", "item", 200, "2", 5000)];
    check(&nginx(&load)?, &rows)
}

#[test]
fn node_that_moves_the_records_itself() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let certificate = Certificate::new()?;
    let (key, cert) = (certificate.key(), certificate.chain());
    let script = compile::script("tls.js");
    let paths = [machine::tool("node")?.to_owned(), script, key, cert];
    let mut words: Vec<&str> = paths.iter().filter_map(|path| path.to_str()).collect();
    words.extend(["200", "8"]);
    let rows = [
        ("server", "item", 200, "1.1", 180),
        ("client", "item", 200, "1.1", 180),
        ("server", "missing", 404, "1.1", 20),
        ("client", "missing", 404, "1.1", 20),
    ];
    check(&seen(certificate.dir(), &words)?, &rows)
}

#[test]
fn python_by_descriptor_and_by_memory() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let certificate = Certificate::new()?;
    let (key, cert) = (certificate.key(), certificate.chain());
    let paths = [machine::tool("python3")?.to_owned(), compile::script("tls.py"), key, cert];
    let mut words: Vec<&str> = paths.iter().filter_map(|path| path.to_str()).collect();
    words.push("20");
    let mut rows = Vec::new();
    for kind in ["server", "client"] {
        rows.extend(["urllib", "client", "asyncio"].map(|path| (kind, path, 200, "1.1", 18)));
        rows.push((kind, "missing", 404, "1.1", 6));
    }
    check(&seen(certificate.dir(), &words)?, &rows)
}

#[test]
fn go_with_goroutines_that_read_and_write() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let program = compile::go("tls")?;
    // As services are often built: only the table is left that Go itself reads.
    let stripped = compile::stripped(&program, dir.path())?;
    for (program, option, version) in [(&program, "1", "1.1"), (&stripped, "1", "1.1"), (&program, "2", "2")]
    {
        let program = program.to_string_lossy();
        let rows = [
            ("server", "item", 200, version, 180),
            ("client", "item", 200, version, 180),
            ("server", "missing", 404, version, 20),
            ("client", "missing", 404, version, 20),
        ];
        check(&seen(dir.path(), &[&program, option, "200", "8"])?, &rows).context(version)?;
    }
    Ok(())
}
