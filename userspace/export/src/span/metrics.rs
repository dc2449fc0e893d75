//! Requests and the service graph as OTLP metrics.
//!
//! The graph's metrics have the names of the Collector's service graph connector: `traces_service_graph_request_total`,
//! `traces_service_graph_request_failed_total`, `traces_service_graph_request_server`,
//! `traces_service_graph_request_client` (Prometheus makes `..._seconds` of the last two), with the attributes `client`,
//! `server` and `connection_type`. The protocol is told in `network.protocol.name`.

use std::borrow::Cow;

use descry_abi::histogram::Histogram;
use descry_aggregate::request::{Edge, RequestMetrics, Row, ServiceGraph};
use descry_assemble::span::{Attribute, Value};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::SpanProcess;
use super::graph::node_name;
use crate::otlp::metrics::{
    DurationsPoint, Metric, Number, NumberPoint, Points, ProcessMetrics, Temporality,
};

/// Says that a point stands for all those that found no room (OpenTelemetry's metrics SDK, "Overflow attribute").
pub(super) const OVERFLOW: Attribute = (Cow::Borrowed("otel.metric.overflow"), Value::Bool(true));

/// Metrics of several kinds, each process's together.
pub type MetricsByProcess<'a> = IndexMap<&'a SpanProcess, Vec<Metric>, FxBuildHasher>;

/// The same as the encoder takes it.
pub fn process_metrics(metrics: MetricsByProcess<'_>) -> Vec<ProcessMetrics<'_>> {
    let metrics = metrics.into_iter();
    metrics.map(|(process, metrics)| ProcessMetrics { resource: process.resource(), metrics }).collect()
}

/// Adds the metrics of each process's requests.
pub fn request_metrics<'a>(
    requests: &'a RequestMetrics<SpanProcess>,
    temporality: Temporality,
    to: &mut MetricsByProcess<'a>,
) {
    for (process, rows) in requests.rows() {
        let instruments = rows.chunk_by(|a, b| a.instrument == b.instrument);
        let metrics = instruments.filter_map(|rows| of_instrument(rows, temporality));
        to.entry(process).or_default().extend(metrics);
    }
}

fn of_instrument(rows: &[Row<'_>], temporality: Temporality) -> Option<Metric> {
    let instrument = rows.first()?.instrument;
    let points = rows.iter().map(|row| DurationsPoint {
        attributes: row_attributes(row),
        histogram: *row.durations,
        exemplars: row.exemplars.clone(),
    });
    Some(durations(instrument.name(), instrument.description(), points.collect(), temporality))
}

/// What the requests of a row have in common.
fn row_attributes(row: &Row<'_>) -> Vec<Attribute> {
    let Some(values) = row.attributes else { return vec![OVERFLOW] };
    let named = row.instrument.attributes().iter().zip(values);
    named.filter_map(|(name, value)| Some((Cow::Borrowed(*name), value.clone()?))).collect()
}

/// The metrics of the service graph; none without requests.
pub fn edge_metrics(graph: &ServiceGraph, temporality: Temporality) -> Vec<Metric> {
    let edges: Vec<Edge<'_>> = graph.since_told().collect();
    let counts = |name, description, of: fn(&Edge<'_>) -> u64| {
        let points = edges.iter().filter(|edge| of(edge) > 0).map(|edge| NumberPoint {
            attributes: of_edge(edge),
            value: Number::Int(i64::try_from(of(edge)).unwrap_or(i64::MAX)),
        });
        sum(name, description, "{request}", points.collect(), temporality)
    };
    let times = |name, description, of: for<'e> fn(&Edge<'e>) -> &'e Histogram| {
        let points = edges.iter().filter(|edge| of(edge).count > 0).map(|edge| DurationsPoint {
            attributes: of_edge(edge),
            histogram: *of(edge),
            exemplars: Vec::new(),
        });
        durations(name, description, points.collect(), temporality)
    };
    let metrics = [
        counts("traces_service_graph_request_total", "Requests between two services.", |edge| edge.requests),
        counts(
            "traces_service_graph_request_failed_total",
            "Requests between two services that failed.",
            |edge| edge.failed,
        ),
        times(
            "traces_service_graph_request_server",
            "Duration of requests between two services as the server sees it.",
            |edge| edge.server_durations,
        ),
        times(
            "traces_service_graph_request_client",
            "Duration of requests between two services as the client sees it.",
            |edge| edge.client_durations,
        ),
    ];
    metrics.into_iter().filter(|metric| !metric.points.is_empty()).collect()
}

fn of_edge(edge: &Edge<'_>) -> Vec<Attribute> {
    if edge.is_overflow {
        return vec![OVERFLOW];
    }
    let text = |name, text: Cow<'_, str>| (Cow::Borrowed(name), Value::Text(text.into()));
    let mut attributes = vec![
        text("client", node_name(edge.client)),
        text("server", node_name(edge.server)),
        (Cow::Borrowed("connection_type"), Value::Static(edge.connected.name())),
    ];
    if !edge.protocol.is_empty() {
        attributes.push(text("network.protocol.name", edge.protocol.into()));
    }
    attributes
}

/// A metric of sums that only grow.
pub(super) fn sum(
    name: &'static str,
    description: &'static str,
    unit: &'static str,
    points: Vec<NumberPoint>,
    temporality: Temporality,
) -> Metric {
    let points = Points::Sum { unit: Cow::Borrowed(unit), points, monotonic: true, temporality };
    Metric { name: Cow::Borrowed(name), description: Cow::Borrowed(description), points }
}

/// A metric of durations.
pub(super) fn durations(
    name: &'static str,
    description: &'static str,
    points: Vec<DurationsPoint>,
    temporality: Temporality,
) -> Metric {
    let points = Points::Durations { points, temporality };
    Metric { name: Cow::Borrowed(name), description: Cow::Borrowed(description), points }
}
