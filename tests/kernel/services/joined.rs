//! Children and their parents.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use descry_tests::customer::crowd;
use descry_tests::server::{free_port, open_to_all};
use descry_tests::workload::Workload;
use descry_tests::{compile, machine};

use super::{DATABASES, Span, Stores, listens, orders, seen, told};

/// Customers at once.
const CROWD: usize = 50;

/// How many children of one kind are below the request that they were for, below another, and below none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    right: u64,
    wrong: u64,
    alone: u64,
}

impl Tally {
    /// At least 99 % of `expected` are right, and none is wrong.
    fn check(self, what: &str, expected: u64) -> Result<()> {
        eprintln!("{what}: {self:?} of {expected}");
        ensure!(self.right + self.wrong + self.alone == expected, "{what}: {self:?} of {expected}");
        ensure!(self.wrong == 0, "{what}: some are below another request: {self:?}");
        ensure!(self.right * 100 >= expected * 99, "{what}: {self:?} of {expected}");
        Ok(())
    }
}

/// The client spans of a process, by what they ask.
fn tally(spans: &[Span], pid: u32) -> BTreeMap<String, Tally> {
    let own = || spans.iter().filter(|span| span.pid() == u64::from(pid));
    let parents: BTreeMap<&str, &Span> =
        own().filter(|span| span.is_server()).map(|span| (span.text("span_id"), span)).collect();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for span in own().filter(|span| !span.is_server()) {
        let Some((kind, number)) = span.truth() else { continue };
        let tally = tallies.entry(kind.clone()).or_default();
        match parents.get(span.text("parent_span_id")).and_then(|parent| parent.number()) {
            None => tally.alone += 1,
            Some(parent) if parent == number || kind == "redis" && parent % DATABASES == number => {
                tally.right += 1;
            }
            Some(_) => tally.wrong += 1,
        }
    }
    tallies
}

fn path(number: u64) -> (String, String) {
    (format!("/orders/{number}"), String::new())
}

/// A traceparent whose ids are a number.
fn traced(number: u64) -> (String, String) {
    (format!("/orders/{number}"), format!("traceparent: 00-{number:032x}-{number:016x}-01\r\n"))
}

#[test]
fn tokio_tasks() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let stores = Stores::start()?;
    let (service, port) = stores.axum(&orders()?)?;
    let (spans, outcome) = seen(&[service.pid()], &[], || {
        crowd(port, CROWD, 1, 1500, path)?;
        crowd(port, CROWD, 5001, 500, |number| (format!("/spawned/{number}"), String::new()))
    })?;
    let tallies = tally(&spans, service.pid());
    let of =
        |kind: &str| tallies.get(kind).copied().with_context(|| format!("no {kind}: {}", outcome.stderr));
    of("order")?.check("queries", 1500)?;
    of("again")?.check("queries after a sleep", 1500)?;
    of("redis")?.check("Redis", 1500)?;
    // A task does not know who spawned it.
    let spawned = of("spawned")?;
    ensure!(spawned == Tally { alone: 500, ..Tally::default() }, "spawned tasks: {spawned:?}");
    Ok(())
}

#[test]
fn tokio_without_symbols() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let stores = Stores::start()?;
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("orders");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(orders()?).status()?;
    ensure!(status.success(), "strip failed: apt-get install binutils");
    let (service, port) = stores.axum(&stripped)?;
    let (spans, outcome) = seen(&[service.pid()], &["-v"], || crowd(port, CROWD, 1, 300, path))?;
    for (kind, tally) in tally(&spans, service.pid()) {
        ensure!(tally.right + tally.wrong == 0, "{kind}: {tally:?}");
    }
    let said = outcome.stderr.matches("a Tokio program without symbols").count();
    ensure!(said == 1, "said {said} times:\n{}", outcome.stderr);
    Ok(())
}

#[test]
fn one_trace_through_a_proxy() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let stores = Stores::start()?;
    let (service, port) = stores.axum(&orders()?)?;
    for keepalive in ["", "keepalive 16;"] {
        let (proxy, proxy_port, _dir) = proxy(port, keepalive)?;
        let worker = proxy.first_child()?;
        let pids = [worker, service.pid()];
        let (spans, _) = seen(&pids, &[], || {
            crowd(proxy_port, CROWD, 1, 600, path)?;
            crowd(proxy_port, CROWD, 10_001, 400, traced)
        })?;
        let what = format!("nginx, {keepalive:?}");
        let tallies = tally(&spans, worker);
        tallies.get("path").context("nginx asked nothing")?.check(&what, 1000)?;
        let tallies = tally(&spans, service.pid());
        tallies.get("order").context("axum asked nothing")?.check("axum behind nginx", 1000)?;
        // nginx as server and as client, axum as server, and its two queries.
        let mut traces: BTreeMap<&str, u64> = BTreeMap::new();
        for span in spans.iter().filter(|span| span.truth().is_some_and(|(kind, _)| kind != "redis")) {
            *traces.entry(span.text("trace_id")).or_default() += 1;
        }
        let whole = (10_001u64..10_401)
            .filter(|number| traces.get(format!("{number:032x}").as_str()).copied() == Some(5));
        let whole = whole.count();
        ensure!(whole >= 396, "{whole} of 400 traces are whole ({what})");
    }
    Ok(())
}

/// nginx with one worker before a service.
fn proxy(port: u16, keepalive: &str) -> Result<(Workload, u16, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    open_to_all(dir.path())?;
    let (root, own) = (dir.path().display(), free_port()?);
    let config = format!(
        "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         upstream service {{ server 127.0.0.1:{port}; {keepalive} }}\n\
         server {{ listen 127.0.0.1:{own}; location / {{ proxy_pass http://service; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; }} }} }}\n"
    );
    fs::write(dir.path().join("nginx.conf"), config)?;
    let mut command = Command::new(machine::tool("nginx")?);
    command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
    let server = Workload::spawn(command)?;
    listens(own)?;
    Ok((server, own, dir))
}

#[test]
fn goroutines() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let program = compile::go("orders")?;
    let stores = Stores::start()?;
    let mut command = Command::new(machine::tool("python3")?);
    command.arg(compile::script("orders_grpc.py"));
    let (callee, grpc) = told(command)?;
    let mut command = Command::new(program);
    command.args([format!("127.0.0.1:{grpc}"), format!("127.0.0.1:{}", stores.postgres_port)]);
    let (service, port) = told(command)?;
    let (spans, _) = seen(&[service.pid(), callee.pid()], &[], || crowd(port, CROWD, 1, 1000, traced))?;
    let tallies = tally(&spans, service.pid());
    // A stream of HTTP/2 is written by a goroutine of its own, as the query is that the handler spawns.
    for kind in ["order", "spawned", "rpc"] {
        tallies.get(kind).with_context(|| format!("no {kind}"))?.check(kind, 1000)?;
    }
    // The handler, its two queries and the call, and who was called.
    let mut traces: BTreeMap<&str, u64> = BTreeMap::new();
    for span in &spans {
        *traces.entry(span.text("trace_id")).or_default() += 1;
    }
    let whole = (1u64..1001)
        .filter(|number| traces.get(format!("{number:032x}").as_str()).is_some_and(|count| *count >= 5));
    let whole = whole.count();
    ensure!(whole >= 990, "{whole} of 1000 traces are whole");
    Ok(())
}
