//! Requests and the service graph as OTLP metrics.
//!
//! The graph's metrics have the names of the Collector's service graph connector: `traces_service_graph_request_total`,
//! `traces_service_graph_request_failed_total`, `traces_service_graph_request_server`,
//! `traces_service_graph_request_client` (Prometheus makes `..._seconds` of the last two), with the attributes `client`,
//! `server` and `connection_type`. The protocol is told in `network.protocol.name`.

use std::borrow::Cow;

use descry_abi::histogram::Histogram;
use descry_aggregate::request::{Edge, Instrument, RequestMetrics, Row, ServiceGraph};
use descry_assemble::span::{Attribute, Value};
use descry_process::Attributes;

use super::SpanProcess;
use super::graph::node_name;
use crate::otlp::metrics::{
    DurationsPoint, Metric, Number, NumberPoint, Points, ProcessMetrics, Temporality,
};

/// Says that a point stands for all those that found no room (OpenTelemetry's metrics SDK, "Overflow attribute").
const OVERFLOW: Attribute = (Cow::Borrowed("otel.metric.overflow"), Value::Bool(true));

/// The metrics of all processes.
pub fn request_metrics(
    requests: &RequestMetrics<SpanProcess>,
    temporality: Temporality,
) -> Vec<ProcessMetrics<'_>> {
    let metrics = |rows: &[Row<'_>]| {
        let instruments = rows.chunk_by(|a, b| a.instrument == b.instrument);
        instruments.filter_map(|rows| of_instrument(rows, temporality)).collect()
    };
    let processes = requests.rows();
    processes
        .map(|(process, rows)| ProcessMetrics { resource: process.resource(), metrics: metrics(&rows) })
        .collect()
}

fn of_instrument(rows: &[Row<'_>], temporality: Temporality) -> Option<Metric> {
    let instrument = rows.first()?.instrument;
    let points = rows.iter().map(|row| DurationsPoint {
        attributes: row.attributes.map_or_else(|| vec![OVERFLOW], |values| attributes(instrument, values)),
        histogram: *row.durations,
        exemplars: row.exemplars.clone(),
    });
    Some(durations(instrument.name(), instrument.description(), points.collect(), temporality))
}

fn attributes(instrument: Instrument, values: &[Option<Value>]) -> Vec<Attribute> {
    let named = instrument.attributes().iter().zip(values);
    named.filter_map(|(name, value)| Some((Cow::Borrowed(*name), value.clone()?))).collect()
}

/// The metrics of the service graph, of descry itself as `resource` describes it; none without requests.
pub fn edge_metrics<'a>(
    graph: &ServiceGraph,
    resource: &'a Attributes,
    temporality: Temporality,
) -> Option<ProcessMetrics<'a>> {
    let edges: Vec<Edge<'_>> = graph.since_told().collect();
    let sum = |name, description, of: fn(&Edge<'_>) -> u64| {
        let points = edges.iter().filter(|edge| of(edge) > 0).map(|edge| NumberPoint {
            attributes: of_edge(edge),
            value: Number::Int(i64::try_from(of(edge)).unwrap_or(i64::MAX)),
        });
        let unit = Cow::Borrowed("{request}");
        let points = Points::Sum { unit, points: points.collect(), monotonic: true, temporality };
        Metric { name: Cow::Borrowed(name), description: Cow::Borrowed(description), points }
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
        sum("traces_service_graph_request_total", "Requests between two services.", |edge| edge.requests),
        sum(
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
    let metrics: Vec<Metric> = metrics.into_iter().filter(|metric| !metric.points.is_empty()).collect();
    (!metrics.is_empty()).then_some(ProcessMetrics { resource, metrics })
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

fn durations(
    name: &'static str,
    description: &'static str,
    points: Vec<DurationsPoint>,
    temporality: Temporality,
) -> Metric {
    let points = Points::Durations { points, temporality };
    Metric { name: Cow::Borrowed(name), description: Cow::Borrowed(description), points }
}
