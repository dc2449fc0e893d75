//! A real OpenTelemetry Collector takes what descry sends, and what it forwards says the same.
//!
//! `DESCRY_OTELCOL=FILE` names a collector; else one is built, once. `DESCRY_SKIP_COLLECTOR_TESTS=1` skips these tests.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod metrics;
mod profiles;
mod traces;

use std::time::Duration;

use descry_export::send::{Sender, Settings, SignalRequest};
use descry_tests::collector::Collector;

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends the requests, which must all be taken, and says how many they were.
fn send<R: SignalRequest>(
    collector: &Collector,
    url: &str,
    protocol: &str,
    compression: &str,
    requests: impl IntoIterator<Item = R>,
) -> u64 {
    let case = format!("{} {protocol} {compression}", R::SIGNAL.name);
    let env = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_PROTOCOL" => Some(protocol.to_owned()),
        "OTEL_EXPORTER_OTLP_COMPRESSION" => Some(compression.to_owned()),
        _ => None,
    };
    let settings = Settings::with_endpoint(R::SIGNAL, "--otlp-endpoint", url, env).unwrap();
    let outcome = Sender::new(settings).unwrap().send_blocking(requests).unwrap();
    assert!(outcome.is_complete(), "{case}: {outcome:?}\n{}", collector.log());
    assert_eq!(outcome.unconfirmed_requests, 0, "{case}");
    assert!(outcome.sent_requests >= 1, "{case}");
    outcome.sent_requests
}

/// Calls `check` with a URL, a protocol and a compression for each that there is.
fn by_every_transport(collector: &Collector, check: impl Fn(&str, &str, &str)) {
    for compression in ["none", "gzip", "zstd"] {
        check(&collector.grpc_url(), "grpc", compression);
        check(&collector.http_url(), "http/protobuf", compression);
        check(&collector.http_url(), "http/json", compression);
    }
}

/// One test, because all share the one collector and what it forwards.
#[test]
fn the_same_comes_out() {
    let Some(collector) = Collector::start().unwrap() else { return };
    profiles::same_stacks_and_counts_come_out(&collector);
    traces::same_spans_come_out(&collector);
    metrics::same_points_come_out(&collector);
}
