//! Receivers that people run take what the agent sends, and have what was observed.
//!
//! rotel and the Datadog test agent come from PyPI, once, below cargo's target directory (`tests/receivers/install.sh`);
//! Prometheus is Debian's. `DESCRY_SKIP_COLLECTOR_TESTS=1` and `DESCRY_SKIP_READER_TESTS=1` skip what is not to be built or
//! fetched.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use descry_tests::collector::Collector;
use descry_tests::server::free_port;
use descry_tests::workload::{Workload, eventually};
use descry_tests::{compile, machine};
use serde_json::Value;

use super::receiver::Receiver;
use super::signals::shop;
use super::{Agent, get};

/// Requests of the shop's customer, and the spans that they make: those and a search for each report, of server and client.
const REQUESTS: u32 = 40;
const SPANS: u64 = 100;
/// How long nothing may come until all has come.
const QUIET: Duration = Duration::from_secs(3);

/// By signal, how many items there are.
type Items = BTreeMap<String, u64>;

/// All four signals of the shop and of what burns CPU time to a receiver, and to one that counts.
fn config(counting: &Receiver, url: &str, protocol: &str, signals: &str) -> String {
    format!(
        "profile: {{frequency: 99, window: 1s}}\nrules: [{{comm: shop}}, {{comm: burner}}]\nothers: {{profile: false, requests: false}}\n\
         destinations:\n  - {{name: counting, endpoint: '{}', compression: none, signals: {signals}}}\n  \
         - {{name: receiver, endpoint: '{url}', protocol: {protocol}, signals: {signals}}}\n",
        counting.url()
    )
}

/// The agent watches the shop until its windows are over, and ends.
fn observe(config: &str) -> Result<()> {
    let agent = Agent::start(config)?;
    shop(REQUESTS)?;
    // On a fast machine no sample may hit the shop.
    Command::new(compile::rust("burner")?).args(["--seconds", "0.5"]).output()?;
    agent.until("descry_agent_spans_total", "", SPANS)?;
    agent.until("descry_agent_windows_total", "", 3)?;
    let dropped = agent.metric("descry_destination_dropped_items_total", "")?;
    agent.end()?;
    ensure!(dropped == 0, "{dropped} items were dropped");
    Ok(())
}

/// What the one that counts has, by signal.
fn counted(counting: &Receiver) -> Items {
    let seen = counting.seen();
    // /v1/traces, and of profiles /v1development/profiles.
    let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    seen.items.iter().map(|(path, items)| (name(path), *items)).collect()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[name].as_array().into_iter().flatten()
}

/// Adds up what a request holds, of whichever signal.
fn count(request: &Value, items: &mut Items) {
    for (signal, resources, scopes, all) in [
        ("traces", "resourceSpans", "scopeSpans", "spans"),
        ("logs", "resourceLogs", "scopeLogs", "logRecords"),
        ("metrics", "resourceMetrics", "scopeMetrics", "metrics"),
        ("profiles", "resourceProfiles", "scopeProfiles", "profiles"),
    ] {
        let scopes = list(request, resources).flat_map(|resource| list(resource, scopes));
        let all = scopes.flat_map(|scope| list(scope, all));
        let number = match signal {
            "metrics" => all.map(|metric| points(metric).count()).sum(),
            _ => all.count(),
        };
        if number > 0 {
            *items.entry(signal.to_owned()).or_default() += number as u64;
        }
    }
}

/// The points of a metric, of whichever kind.
fn points(metric: &Value) -> impl Iterator<Item = &Value> {
    let kinds = ["gauge", "sum", "histogram", "exponentialHistogram"];
    kinds.into_iter().flat_map(|kind| list(&metric[kind], "dataPoints"))
}

/// The resources of a request that are of the shop.
fn of_shop<'a>(request: &'a Value, resources: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    list(request, resources).filter(|resource| {
        let mut attributes = list(&resource["resource"], "attributes");
        attributes.any(|it| it["key"] == "process.executable.name" && it["value"]["stringValue"] == "shop")
    })
}

fn spans_of_shop(requests: &[Value]) -> u64 {
    let resources = requests.iter().flat_map(|request| of_shop(request, "resourceSpans"));
    let scopes = resources.flat_map(|resource| list(resource, "scopeSpans"));
    scopes.flat_map(|scope| list(scope, "spans")).count() as u64
}

/// How many requests the metrics of the shop say there were: each series is told again and again.
fn measured_requests(requests: &[Value]) -> u64 {
    let mut series: BTreeMap<String, u64> = BTreeMap::new();
    let resources = requests.iter().flat_map(|request| of_shop(request, "resourceMetrics"));
    let metrics = resources.flat_map(|it| list(it, "scopeMetrics")).flat_map(|it| list(it, "metrics"));
    let is_wanted = |name: &str| name.starts_with("http.") && name.ends_with(".request.duration");
    for metric in metrics.filter(|metric| metric["name"].as_str().is_some_and(is_wanted)) {
        for point in points(metric) {
            let count = point["count"].as_str().and_then(|count| count.parse().ok()).unwrap_or(0);
            let known = series.entry(format!("{} {}", metric["name"], point["attributes"])).or_default();
            *known = count.max(*known);
        }
    }
    series.values().sum()
}

fn check_collector(protocol: &str, url: impl Fn(&Collector) -> String) -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(collector) = Collector::start()? else { return Ok(()) };
    let counting = Receiver::start()?;
    observe(&config(&counting, &url(&collector), protocol, "[traces, metrics, profiles, logs]"))?;
    let requests: Vec<Value> = std::iter::from_fn(|| collector.next_forwarded(QUIET).ok()).collect();
    let (mut forwarded, counted) = (Items::new(), counted(&counting));
    requests.iter().for_each(|request| count(request, &mut forwarded));
    ensure!(counted.len() == 4, "not all signals: {counted:?}");
    ensure!(forwarded == counted, "forwarded {forwarded:?}, sent {counted:?}; its log:\n{}", collector.log());
    let spans = spans_of_shop(&requests);
    ensure!(spans == SPANS, "{spans} spans of the shop");
    let measured = measured_requests(&requests);
    ensure!(measured == SPANS, "{measured} requests in the metrics");
    Ok(())
}

#[test]
fn all_signals_reach_a_collector_by_grpc() -> Result<()> {
    check_collector("grpc", Collector::grpc_url)
}

#[test]
fn all_signals_reach_a_collector_by_http_with_protobuf() -> Result<()> {
    check_collector("http/protobuf", Collector::http_url)
}

#[test]
fn all_signals_reach_a_collector_by_http_with_json() -> Result<()> {
    check_collector("http/json", Collector::http_url)
}

/// Where the receivers of PyPI are, unless such tests are to be skipped.
fn receivers() -> Result<Option<PathBuf>> {
    if machine::is_skipped("DESCRY_SKIP_READER_TESTS") {
        return Ok(None);
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("receivers");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("receivers/install.sh");
    let _lock = machine::lock("receivers")?;
    let status = Command::new(script).arg(&dir).status()?;
    ensure!(status.success(), "the receivers need python3 with venv; DESCRY_SKIP_READER_TESTS=1 skips them");
    Ok(Some(dir))
}

/// A server of this command that nobody hears, once it listens on all of these ports.
fn serve(mut command: Command, ports: &[u16]) -> Result<Workload> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let server = Workload::spawn(command)?;
    eventually("the receiver to listen", || {
        let is_there = |port: &u16| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok();
        Ok(ports.iter().all(is_there).then_some(()))
    })?;
    Ok(server)
}

#[test]
fn traces_metrics_and_logs_pass_through_rotel() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(dir) = receivers()? else { return Ok(()) };
    let (counting, behind) = (Receiver::start()?, Receiver::start()?);
    let (grpc, http) = (free_port()?, free_port()?);
    let pattern = dir.join("rotel/lib/python3.*/site-packages/rotel/rotel-agent");
    let found = glob::glob(&pattern.to_string_lossy())?.next().context("no rotel-agent in its package")??;
    let mut rotel = Command::new(found);
    rotel.args(["start", "--disable-batching", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]);
    rotel.args(["--otlp-exporter-endpoint", &behind.url()]);
    rotel.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")]);
    rotel.args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")]);
    let _rotel = serve(rotel, &[grpc, http])?;
    for (protocol, port) in [("grpc", grpc), ("http/protobuf", http)] {
        let url = format!("http://127.0.0.1:{port}");
        observe(&config(&counting, &url, protocol, "[traces, metrics, logs]"))?;
        eventually(&format!("rotel to forward what came by {protocol}"), || {
            Ok((counted(&behind) == counted(&counting)).then_some(()))
        })?;
    }
    let counted = counted(&counting);
    ensure!(counted.len() == 3 && counted.get("traces") == Some(&(2 * SPANS)), "{counted:?}");
    Ok(())
}

#[test]
fn spans_are_in_the_test_agent_of_datadog() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(dir) = receivers()? else { return Ok(()) };
    let counting = Receiver::start()?;
    let (own, grpc, http) = (free_port()?, free_port()?, free_port()?);
    let work = tempfile::tempdir()?;
    let mut agent = Command::new(dir.join("ddapm-test-agent/bin/ddapm-test-agent"));
    agent.args(["--port", &own.to_string(), "--otlp-http-port", &http.to_string()]);
    agent.args(["--otlp-grpc-port", &grpc.to_string()]).current_dir(work.path());
    let _agent = serve(agent, &[own, grpc, http])?;
    observe(&config(&counting, &format!("http://127.0.0.1:{http}"), "http/protobuf", "[traces]"))?;
    let (status, body) = get(SocketAddr::from((Ipv4Addr::LOCALHOST, http)), "/test/session/traces")?;
    ensure!(status == 200, "{status}: {body}");
    // It has protobuf's names of fields, not those of JSON.
    let camel = [("_spans", "Spans"), ("_value", "Value")];
    let body = camel.into_iter().fold(body, |body, (from, to)| body.replace(from, to));
    let requests: Vec<Value> = serde_json::from_str(&body)?;
    ensure!(spans_of_shop(&requests) == SPANS, "{body}");
    Ok(())
}

#[test]
fn prometheus_scrapes_requests_processes_and_queues() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let receiver = Receiver::start()?;
    let rules = "rules: [{comm: shop}]\nothers: {requests: false}";
    let agent = Agent::start(&format!(
        "profile: {{frequency: 99, window: 1s}}\n{rules}\ndestinations: [{{name: sink, endpoint: '{}'}}]\n",
        receiver.url()
    ))?;
    let scrape = format!(
        "scrape_configs: [{{job_name: descry, scrape_interval: 500ms, static_configs: [{{targets: ['{}']}}]}}]\n",
        agent.health
    );
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, scrape)?;
    let port = free_port()?;
    let mut prometheus = Command::new(machine::tool("prometheus")?);
    prometheus.arg("--config.file").arg(&config).arg("--storage.tsdb.path").arg(dir.path().join("data"));
    prometheus.args(["--web.listen-address", &format!("127.0.0.1:{port}")]);
    let _prometheus = serve(prometheus, &[port])?;
    // Until it is scraped: a histogram is there for two windows after its program has ended.
    let ask = |query: &str| -> Result<Option<f64>> {
        let query = query.replace('"', "%22").replace(' ', "%20").replace('{', "%7B").replace('}', "%7D");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (status, body) = get(address, &format!("/api/v1/query?query={query}"))?;
        // It takes a moment to start.
        if status == 503 {
            return Ok(None);
        }
        ensure!(status == 200, "{status}: {body}");
        let answer: Value = serde_json::from_str(&body)?;
        let value = &answer["data"]["result"][0]["value"][1];
        Ok(value.as_str().map(str::parse).transpose()?)
    };
    let until = |query: &str, is_right: &dyn Fn(f64) -> bool| {
        eventually(query, || Ok(ask(query)?.filter(|value| is_right(*value)).map(|_| ())))
    };
    until("up{job=\"descry\"}", &|value| (value - 1.0).abs() < f64::EPSILON)?;
    shop(REQUESTS)?;
    for side in ["server", "client"] {
        let name = format!("http_{side}_request_duration_seconds");
        let count = format!("sum(max_over_time({name}_count{{process_executable_name=\"shop\"}}[5m]))");
        until(&count, &|value| (value - SPANS as f64 / 2.0).abs() < 0.5)?;
        // A report sleeps 30 ms: at least those ten are above 2^24 ns.
        let reports =
            format!("{name}_count{{http_response_status_code=\"200\",process_executable_name=\"shop\"}}");
        let quick = reports.replace("_count{", "_bucket{le=\"0.016777216\",");
        let slow = format!("sum(max_over_time({reports}[5m]))-sum(max_over_time({quick}[5m]))");
        until(&slow, &|value| value >= 10.0 - 0.5)?;
    }
    let calls = "traces_service_graph_request_total{client=\"shop\",server=\"shop\"}";
    until(&format!("sum(max_over_time({calls}[5m]))"), &|value| value >= SPANS as f64 / 2.0 - 0.5)?;
    until("sum(max_over_time(descry_tcp_rtt_seconds_count{service_name=\"shop\"}[5m]))", &|value| {
        value > 0.5
    })?;
    until("max(process_memory_usage_bytes)", &|value| value > 0.0)?;
    until("sum(descry_destination_sent_items_total{destination=\"sink\"})", &|value| value >= SPANS as f64)?;
    agent.end()?;
    Ok(())
}
