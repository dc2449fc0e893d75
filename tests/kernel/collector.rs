//! A real OpenTelemetry Collector takes the profiles, and what it forwards holds the same stacks and counts.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use descry_tests::collector::{Collector, stacks};
use descry_tests::descry::Descry;
use descry_tests::folded::{Folded, Stack};
use descry_tests::{machine, workload::Workload};

use crate::HZ;

/// How long a collector may take to forward.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a measurement by this protocol, and writes it as well.
fn check(protocol: &str, url: impl Fn(&Collector) -> String) -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(collector) = Collector::start()? else { return Ok(()) };
    let workload = Workload::native("split", &[])?;
    let outcome = Descry::profile(HZ, 2)?
        .pid(workload.pid())
        .args(["--otlp-endpoint", &url(&collector)])
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .succeed()?;
    let forwarded = stacks(&collector.next_forwarded(PATIENCE)?, "samples")?;
    let written = by_names(&outcome.folded()?);
    ensure!(written.values().sum::<i64>() > 500, "few samples:\n{}", outcome.stderr);
    ensure!(forwarded == written, "forwarded:\n{forwarded:#?}\nwritten:\n{written:#?}");
    Ok(())
}

/// Counts by function names from the leaf to the root, as the collector's side has them: without marks, and without the
/// frames that have no name.
fn by_names(folded: &Folded) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for Stack { frames, count, truncated, .. } in &folded.stacks {
        let names = frames.iter().rev().filter(|frame| !frame.unknown()).map(|frame| &*frame.name);
        let names: Vec<&str> = names.chain(truncated.then_some("[truncated]")).collect();
        *counts.entry(names.join(";")).or_default() += i64::try_from(*count).unwrap_or(i64::MAX);
    }
    counts
}

#[test]
fn by_grpc() -> Result<()> {
    check("grpc", Collector::grpc_url)
}

#[test]
fn by_http_with_protobuf() -> Result<()> {
    check("http/protobuf", Collector::http_url)
}

#[test]
fn by_http_with_json() -> Result<()> {
    check("http/json", Collector::http_url)
}
