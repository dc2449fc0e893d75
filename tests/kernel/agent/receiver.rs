//! An OTLP/HTTP receiver of all signals that misbehaves when a test says so, and counts what it acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use descry_export::send::SignalRequest;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;

/// What it does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Takes them.
    Well,
    /// Answers with this status, and `Retry-After: 1`.
    Status(u16),
    /// Takes them after so long.
    Slow(Duration),
    /// Reads a part of the request and hangs up.
    HangsUp,
    /// Takes all but one item.
    Partial,
}

/// What it has.
#[derive(Debug, Default)]
pub struct Seen {
    /// Items acknowledged, by the path that they came to.
    pub items: BTreeMap<String, u64>,
    /// Items that it said it rejected.
    pub rejected: u64,
    /// Requests that it did not take.
    pub refused: u64,
    /// The spans.
    pub traces: Vec<ExportTraceServiceRequest>,
    /// The log records.
    pub logs: Vec<ExportLogsServiceRequest>,
    /// The profiles.
    pub profiles: Vec<ExportProfilesServiceRequest>,
    /// The metrics.
    pub metrics: Vec<ExportMetricsServiceRequest>,
}

/// A running receiver; its threads live as long as the process.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<(Mutex<Mode>, Mutex<Seen>)>,
}

impl Receiver {
    /// Starts one that works.
    ///
    /// # Errors
    /// If there is no port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new((Mutex::new(Mode::Well), Mutex::new(Seen::default())));
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                // A connection that the other end gave up is no failure of the test.
                std::thread::spawn(move || serve(&stream, &served).ok());
            }
        });
        Ok(Self { address, shared })
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does so from now on.
    pub fn set(&self, mode: Mode) {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// What it has until now.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All items that it acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.seen().items.values().sum()
    }
}

fn serve(stream: &TcpStream, (mode, seen): &(Mutex<Mode>, Mutex<Seen>)) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).context("no path")?.to_owned();
        let (mut length, mut is_compressed) = (0, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
            is_compressed |= name.eq_ignore_ascii_case("content-encoding") && value.trim() == "gzip";
        }
        let mode = *mode.lock().unwrap_or_else(PoisonError::into_inner);
        if mode == Mode::HangsUp {
            reader.read_exact(&mut vec![0; length / 2])?;
            seen.lock().unwrap_or_else(PoisonError::into_inner).refused += 1;
            return Ok(());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if is_compressed {
            let mut whole = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut whole)?;
            body = whole;
        }
        if let Mode::Slow(pause) = mode {
            std::thread::sleep(pause);
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Mode::Status(status) = mode {
            seen.refused += 1;
            write!(&mut &*stream, "HTTP/1.1 {status} X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let items = take(&mut seen, &path, &body)?;
        *seen.items.entry(path).or_default() += items;
        let rejected = i64::from(mode == Mode::Partial && items > 0);
        seen.rejected += rejected.unsigned_abs();
        // The messages of all signals have the same fields.
        let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: "no".to_owned() };
        let partial_success = (rejected > 0).then_some(partial);
        let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf";
        write!(&mut &*stream, "{head}\r\nContent-Length: {}\r\n\r\n", answer.len())?;
        (&mut &*stream).write_all(&answer)?;
    }
}

/// Keeps a request; returns how many items it has.
fn take(seen: &mut Seen, path: &str, body: &[u8]) -> Result<u64> {
    Ok(match path {
        "/v1/traces" => keep(&mut seen.traces, body)?,
        "/v1/logs" => keep(&mut seen.logs, body)?,
        "/v1/metrics" => keep(&mut seen.metrics, body)?,
        _ => keep(&mut seen.profiles, body)?,
    })
}

fn keep<R: SignalRequest + Message + Default>(all: &mut Vec<R>, body: &[u8]) -> Result<u64> {
    let request = R::decode(body)?;
    let items = request.items();
    all.push(request);
    Ok(items)
}
