//! `descry requests` against a shop that knows what it was asked.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::{Descry, Outcome};
use descry_tests::workload::Workload;
use descry_tests::{compile, machine};
use serde_json::Value;

/// The lines that `descry requests --format json` wrote.
pub(crate) struct Report {
    pub(crate) spans: Vec<Value>,
    pub(crate) summary: Value,
}

impl Report {
    pub(crate) fn read(outcome: &Outcome, path: &std::path::Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let (spans, others): (Vec<Value>, Vec<Value>) =
            lines.into_iter().partition(|line| line["type"] == "span");
        let [summary] = others.as_slice() else {
            anyhow::bail!("not one summary: {others:?}\n{}", outcome.stderr)
        };
        Ok(Self { spans, summary: summary.clone() })
    }

    /// How many spans of a kind have this name and this status code.
    fn count(&self, kind: &str, name: &str, status: u64) -> usize {
        let is = |span: &&Value| {
            span["kind"] == kind
                && span["name"] == name
                && span["attributes"]["http.response.status_code"] == status
        };
        self.spans.iter().filter(is).count()
    }

    pub(crate) fn of<'a>(&'a self, kind: &'a str, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.spans.iter().filter(move |span| span["kind"] == kind && span["name"] == name)
    }

    /// How many spans of which kind and name there are, for messages.
    pub(crate) fn names(&self) -> String {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for span in &self.spans {
            *counts.entry(format!("{} {}", span["kind"], span["name"])).or_default() += 1;
        }
        counts.iter().map(|(name, count)| format!("{count} {name}\n")).collect()
    }
}

/// How long a span took (ms).
pub(crate) fn milliseconds(span: &Value) -> f64 {
    let time = |name: &str| span[name].as_u64().unwrap_or_default() as f64;
    (time("end_unix_nano") - time("start_unix_nano")) / 1e6
}

#[test]
fn every_request_of_a_started_program() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    check_every_request(Descry::new("requests")?)
}

pub(crate) fn check_every_request(descry: Descry) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let shop = compile::rust("shop")?;
    let outcome = descry.output(&file).args(["--", &*shop.to_string_lossy(), "--requests", "40"]);
    let outcome = outcome.succeed()?;
    let report = Report::read(&outcome, &file)?;
    ensure!(report.summary["lost"] == serde_json::json!({}), "lost: {}", report.summary["lost"]);
    // Ten of each from the customer, and a search for each report.
    for kind in ["server", "client"] {
        for (name, status, count) in [
            ("GET /checkout/{id}", 200, 10),
            ("GET /search", 200, 20),
            ("GET /report", 200, 10),
            ("GET /missing", 404, 10),
        ] {
            let found = report.count(kind, name, status);
            ensure!(found == count, "{found} spans {kind} {name} {status} instead of {count}");
        }
    }
    ensure!(report.spans.len() == 100, "{} spans", report.spans.len());
    // What one request caused is below it.
    let reports: BTreeMap<&str, &Value> = report
        .of("server", "GET /report")
        .filter_map(|span| Some((span["span_id"].as_str()?, span)))
        .collect();
    let children: Vec<&Value> =
        report.of("client", "GET /search").filter(|span| !span["parent_span_id"].is_null()).collect();
    ensure!(children.len() == 10, "{} searches have a parent", children.len());
    for child in children {
        let parent = child["parent_span_id"].as_str().and_then(|id| reports.get(id));
        let parent = parent.with_context(|| format!("not below a report: {child}"))?;
        ensure!(child["trace_id"] == parent["trace_id"], "another trace: {child} {parent}");
        ensure!(milliseconds(child) <= milliseconds(parent), "longer than its parent: {child} {parent}");
    }
    // A report sleeps 30 ms, as both sides see.
    for span in report.of("server", "GET /report").chain(report.of("client", "GET /report")) {
        ensure!(milliseconds(span) >= 30.0, "a report of {} ms", milliseconds(span));
    }
    // A failure of the client is an error for the client.
    for span in report.of("client", "GET /missing") {
        ensure!(span["status"] == "error" && span["attributes"]["error.type"] == "404", "{span}");
    }
    ensure!(
        report.of("server", "GET /missing").all(|span| span["status"] == "unset"),
        "a 404 is no server's error"
    );
    Ok(())
}

#[test]
fn connections_that_were_there_before() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let shop = Workload::rust("shop", &[])?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("requests.json");
    let outcome = Descry::new("requests")?.pid(shop.pid()).args(["-d", "2s"]).output(&file).succeed()?;
    let report = Report::read(&outcome, &file)?;
    for kind in ["server", "client"] {
        for (name, status) in
            [("GET /checkout/{id}", 200), ("GET /search", 200), ("GET /report", 200), ("GET /missing", 404)]
        {
            let found = report.count(kind, name, status);
            ensure!(found >= 5, "{found} spans {kind} {name} {status}:\n{}", outcome.stderr);
        }
    }
    // Answers belong to their requests: none takes as long as two.
    let answered =
        report.spans.iter().filter(|span| !span["attributes"]["http.response.status_code"].is_null());
    for span in answered.filter(|span| span["name"] != "GET /report") {
        ensure!(milliseconds(span) < 25.0 || span["name"] == "GET /checkout/{id}", "too long: {span}");
    }
    Ok(())
}
