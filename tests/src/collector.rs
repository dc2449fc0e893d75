//! A real OpenTelemetry Collector between descry and the test: it receives by gRPC and HTTP, and forwards as OTLP/JSON
//! (profiles as protobuf, too) to a sink in this process, so that a test can assert that what came out is what was
//! measured.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::machine;

/// Says where a collector is, so that none is built.
const VARIABLE: &str = "DESCRY_OTELCOL";
/// A started collector is up within a second; a loaded machine takes longer.
const STARTUP: Duration = Duration::from_secs(60);
/// The content type of OTLP's binary encoding.
const PROTOBUF: &str = "application/x-protobuf";

/// The collector's binary: `$DESCRY_OTELCOL`, else the one that is built once for all tests (five minutes of CPU, packages
/// from Debian and PyPI; see `tests/otelcol/build.sh`).
fn binary() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(VARIABLE) {
        let given = PathBuf::from(given);
        ensure!(given.is_file(), "{VARIABLE} names {}, which is no file", given.display());
        return Ok(given);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("otelcol/build.sh");
    let cache = machine::work_dir()?.join("otelcol");
    let _lock = machine::lock("otelcol")?;
    let built = Command::new(&script).arg(&cache).status();
    let status = built.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(status.success(), "{} failed ({status}); give a collector in {VARIABLE}", script.display());
    Ok(cache.join("otelcol"))
}

/// A running collector and its sink; both end with it.
#[derive(Debug)]
pub struct Collector {
    process: Child,
    directory: tempfile::TempDir,
    grpc: SocketAddr,
    http: SocketAddr,
    bodies: Receiver<Value>,
    messages: Receiver<Bytes>,
}

/// The sink's ends of what it takes.
#[derive(Clone)]
struct Takers {
    bodies: Sender<Value>,
    messages: Sender<Bytes>,
}

impl Collector {
    /// Starts it on free ports of the loopback and waits until it takes data. None where `DESCRY_SKIP_COLLECTOR_TESTS=1`
    /// says that there shall be none.
    ///
    /// # Errors
    /// If there is none and none can be built, or it does not start; the message has what it logged.
    pub fn start() -> Result<Option<Self>> {
        if machine::is_skipped("DESCRY_SKIP_COLLECTOR_TESTS") {
            return Ok(None);
        }
        let binary = binary()?;
        let (grpc, http) = (free_address()?, free_address()?);
        let (sink, bodies, messages) = start_sink()?;
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("config.yaml");
        std::fs::write(&config, configuration(grpc, http, sink))?;
        let log = File::create(directory.path().join("log"))?;
        let process = Command::new(&binary)
            .arg("--config")
            .arg(&config)
            .arg("--feature-gates=service.profilesSupport")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut collector = Self { process, directory, grpc, http, bodies, messages };
        collector.wait_until_up()?;
        Ok(Some(collector))
    }

    /// `http://HOST:PORT` of the gRPC receiver.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// `http://HOST:PORT` of the HTTP receiver.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The next request that it forwarded, as JSON.
    ///
    /// # Errors
    /// If none comes within `patience`; the message has what it logged.
    pub fn next_forwarded(&self, patience: Duration) -> Result<Value> {
        self.next(&self.bodies, patience)
    }

    /// The next request with profiles that it forwarded, as protobuf (`ExportProfilesServiceRequest`). Each also comes as
    /// JSON, by [`Collector::next_forwarded`].
    ///
    /// # Errors
    /// As of [`Collector::next_forwarded`].
    pub fn next_message(&self, patience: Duration) -> Result<Vec<u8>> {
        Ok(self.next(&self.messages, patience)?.into())
    }

    fn next<T>(&self, queue: &Receiver<T>, patience: Duration) -> Result<T> {
        let next = queue.recv_timeout(patience);
        next.map_err(|_| {
            anyhow!("the collector forwarded nothing within {patience:?}; its log:\n{}", self.log())
        })
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + STARTUP;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                bail!("the collector ended ({status}); its log:\n{}", self.log());
            }
            if [self.grpc, self.http].iter().all(|address| TcpStream::connect(address).is_ok()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the collector does not listen after {STARTUP:?}; its log:\n{}", self.log());
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A port that was free a moment ago. Somebody else may take it; then the collector says so and the test fails.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn configuration(grpc: SocketAddr, http: SocketAddr, sink: SocketAddr) -> String {
    format!(
        r"receivers:
  otlp:
    protocols:
      grpc: {{endpoint: '{grpc}'}}
      http: {{endpoint: '{http}'}}
exporters:
  otlp_http: {{endpoint: 'http://{sink}', encoding: json, compression: none}}
  otlp_http/protobuf: {{endpoint: 'http://{sink}', encoding: proto, compression: none}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    profiles: {{receivers: [otlp], exporters: [otlp_http, otlp_http/protobuf]}}
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
    metrics: {{receivers: [otlp], exporters: [otlp_http]}}
    logs: {{receivers: [otlp], exporters: [otlp_http]}}
"
    )
}

/// Starts the sink on a thread that lives as long as the process.
fn start_sink() -> Result<(SocketAddr, Receiver<Value>, Receiver<Bytes>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let ((bodies, all_bodies), (messages, all_messages)) = (channel(), channel());
    let takers = Takers { bodies, messages };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new()
        .name("sink".to_owned())
        .spawn(move || runtime.block_on(serve(listener, takers)))?;
    Ok((address, all_bodies, all_messages))
}

async fn serve(listener: TcpListener, takers: Takers) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let takers = takers.clone();
        let service = service_fn(move |request| take(request, takers.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Reads one request and answers it in its own encoding. What is neither protobuf nor JSON is refused: the collector
/// logs that, and the test shows the log.
async fn take(request: Request<Incoming>, takers: Takers) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let is_protobuf = content_type.is_some_and(|found| found == PROTOBUF);
    let body = request.into_body().collect().await?.to_bytes();
    // Nobody wants it any more when the guard of the collector is gone.
    let status = |is_wanted| if is_wanted { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let status = if is_protobuf {
        status(takers.messages.send(body).is_ok())
    } else {
        match serde_json::from_slice(&body) {
            Ok(body) => status(takers.bodies.send(body).is_ok()),
            Err(_) => StatusCode::BAD_REQUEST,
        }
    };
    // A response without any field set.
    let (empty, content_type) = if is_protobuf { ("", PROTOBUF) } else { ("{}", "application/json") };
    let mut response = Response::new(Full::from(empty));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// The stacks of forwarded profiles with the sums of their values: function names from the leaf to the root, joined by
/// `;`, for the sample type `type_name`. Stacks that several samples share are added up.
///
/// # Errors
/// If an index of the message points nowhere.
pub fn stacks(request: &Value, type_name: &str) -> Result<BTreeMap<String, i64>> {
    let dictionary = &request["dictionary"];
    let mut stacks = BTreeMap::new();
    for profile in items(&request["resourceProfiles"])
        .iter()
        .flat_map(|resource| items(&resource["scopeProfiles"]))
        .flat_map(|scope| items(&scope["profiles"]))
    {
        let sample_type = index(&profile["sampleType"]["typeStrindex"]);
        if string(dictionary, sample_type)? != type_name {
            continue;
        }
        for sample in items(&profile["samples"]) {
            let stack = entry(dictionary, "stackTable", index(&sample["stackIndex"]))?;
            let mut names = Vec::new();
            for location in items(&stack["locationIndices"]) {
                let location = entry(dictionary, "locationTable", index(location))?;
                for line in items(&location["lines"]) {
                    let function = entry(dictionary, "functionTable", index(&line["functionIndex"]))?;
                    names.push(string(dictionary, index(&function["nameStrindex"]))?);
                }
            }
            let values = items(&sample["values"]);
            // A sample without values has one timestamp for each occurrence.
            let value = match values.len() {
                0 => i64::try_from(items(&sample["timestampsUnixNano"]).len())?,
                _ => values.iter().map(integer).sum::<Result<_>>()?,
            };
            *stacks.entry(names.join(";")).or_default() += value;
        }
    }
    Ok(stacks)
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// An index, which is left out where it is 0.
fn index(value: &Value) -> usize {
    value.as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or(0)
}

/// A 64-bit integer, which JSON writes as a string.
fn integer(value: &Value) -> Result<i64> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    number.with_context(|| format!("{value} is no integer"))
}

fn entry<'a>(dictionary: &'a Value, table: &str, index: usize) -> Result<&'a Value> {
    items(&dictionary[table]).get(index).with_context(|| format!("{table} has no entry {index}"))
}

fn string(dictionary: &Value, index: usize) -> Result<&str> {
    entry(dictionary, "stringTable", index)?.as_str().context("the string table holds something else")
}
