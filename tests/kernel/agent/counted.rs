//! Requests of traces that are not taken: they are in the metrics, and cost no event.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use descry_tests::machine;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::Agent;
use super::receiver::{Receiver, Seen};
use super::signals::config;
use crate::templates::Client;

/// Requests that a histogram of this name has under an attribute of this value.
fn measured(seen: &Seen, name: &str, attribute: (&str, &Value)) -> u64 {
    let metrics = seen.metrics.iter().flat_map(|request| &request.resource_metrics);
    let metrics = metrics.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
    let is = |it: &KeyValue| {
        it.key == attribute.0 && it.value.as_ref().and_then(|it| it.value.as_ref()) == Some(attribute.1)
    };
    // By cumulative temporality each request tells all: the last one counts.
    let points = metrics.filter(|metric| metric.name == name).filter_map(|metric| match &metric.data {
        Some(Data::ExponentialHistogram(histogram)) => {
            let points = histogram.data_points.iter().filter(|point| point.attributes.iter().any(is));
            Some(points.map(|point| point.count).sum())
        }
        _ => None,
    });
    points.max().unwrap_or_default()
}

#[test]
fn requests_of_traces_that_are_not_taken_are_counted_and_not_told() -> Result<()> {
    const CONNECTIONS: usize = 4;
    const REQUESTS: u64 = 1000;
    const KNOWN: u64 = 50;
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let redis = crate::servers::start_redis(dir.path())?;
    let store = redis.port();
    // Each request asks Redis before it is answered.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> Result<()> {
                let mut store = Client::connect(store)?;
                while stream.read(&mut [0; 1024])? > 0 {
                    store.ask("*2\r\n$3\r\nGET\r\n$4\r\nitem\r\n")?;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nitem")?;
                }
                Ok(())
            });
        }
    });
    let receiver = Receiver::start()?;
    let text = config(
        &receiver,
        &format!(
            "requests: {{sampler: parentbased_traceidratio, sampler_ratio: 0.25}}\n\
             rules: [{{ports: [{port}]}}]\nothers: {{requests: false}}"
        ),
    );
    let agent = Agent::start(&text)?;
    let mut clients = (0..CONNECTIONS).map(|_| Client::connect(port)).collect::<Result<Vec<_>>>()?;
    let mut ask = |rounds: u64| -> Result<()> {
        for _ in 0..rounds {
            for client in &mut clients {
                client.ask("GET /item HTTP/1.1\r\nHost: a\r\n\r\n")?;
            }
        }
        Ok(())
    };
    // Until the first ones are known again everything is told in full.
    ask(KNOWN)?;
    sleep(Duration::from_secs(2));
    let metric = |name: &str| agent.metric(&format!("descry_kernel_{name}_total"), "");
    ask(REQUESTS - KNOWN)?;
    drop(clients);
    let all = REQUESTS * CONNECTIONS as u64;
    // The request, its client's side, and what it asks.
    agent.until("descry_agent_spans_total", "", 3 * all)?;
    let (told, counted) = (metric("exchanges")?, metric("exchanges_counted")?);
    let not_sampled = agent.metric("descry_agent_spans_not_sampled_total", "")?;
    agent.end()?;
    let seen = receiver.seen();
    for (name, attribute, value) in [
        ("http.server.request.duration", "http.route", Value::StringValue("/item".into())),
        ("http.client.request.duration", "server.port", Value::IntValue(port.into())),
        ("db.client.operation.duration", "db.operation.name", Value::StringValue("GET".into())),
    ] {
        let found = measured(&seen, name, (attribute, &value));
        ensure!(found == all, "{name} has {found} of {all}");
    }
    let spans: Vec<_> = seen
        .traces
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|it| &it.scope_spans)
        .collect();
    let spans: Vec<_> = spans.into_iter().flat_map(|scope| &scope.spans).collect();
    let of = |kind: SpanKind, name: &str| -> Vec<_> {
        spans.iter().filter(|span| span.kind == kind as i32 && span.name == name).collect()
    };
    let (served, asked) = (of(SpanKind::Server, "GET /item"), of(SpanKind::Client, "GET"));
    // A quarter of them, give or take six standard deviations.
    ensure!((835..1165).contains(&served.len()), "{} of {all} are taken", served.len());
    ensure!(asked.len() == served.len(), "{} questions of {} requests", asked.len(), served.len());
    let is_below = |child: &&&Span| {
        served.iter().any(|span| span.span_id == child.parent_span_id && span.trace_id == child.trace_id)
    };
    ensure!(asked.iter().all(is_below), "questions whose request is not there");
    // What this test asks of the agent meanwhile is among them.
    let both = spans.len() as u64 + not_sampled;
    ensure!((3 * all..3 * all + 400).contains(&both), "{} and {not_sampled} of {all}", spans.len());
    // Each of the twelve connections has up to 64 messages in full before the kernel side looks what is known of it.
    let most = 3 * (REQUESTS - KNOWN) * CONNECTIONS as u64 - 12 * 32;
    ensure!(told + counted >= most, "{told} exchanges were told, {counted} counted, of {most}");
    ensure!(counted > told * 2, "{told} exchanges were told, {counted} counted");
    Ok(())
}
