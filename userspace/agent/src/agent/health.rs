//! `/healthz`, `/readyz` and `/metrics` over HTTP/1.1 on a loopback address.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};

use super::metrics::Metrics;

/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 16;
/// How long a client may take to send its headers, and for all of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Without a sign of the main loop for so long the agent counts as stuck.
const STUCK: Duration = Duration::from_secs(30);
/// After a failed accept (no descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the main loop tells.
#[derive(Debug)]
pub struct Health {
    began: Instant,
    /// Milliseconds from the beginning to the last sign.
    alive: AtomicU64,
    ready: AtomicBool,
}

impl Health {
    /// Alive, not ready.
    pub fn new() -> Self {
        Self { began: Instant::now(), alive: AtomicU64::new(0), ready: AtomicBool::new(false) }
    }

    /// The main loop has gone round.
    pub fn is_alive(&self) {
        self.alive.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether everything that is configured is measured.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn is_stuck(&self) -> bool {
        let alive = Duration::from_millis(self.alive.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(alive) > STUCK
    }
}

/// The running server. It ends when this is dropped.
pub struct Server {
    address: SocketAddr,
    _end: oneshot::Sender<()>,
}

impl Server {
    /// Listens and answers on a thread of its own.
    ///
    /// # Errors
    /// If the address is taken, or there is no thread.
    pub fn start(address: SocketAddr, health: Arc<Health>, metrics: Metrics) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| format!("cannot listen on {address} (health.address)"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("descry-health".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = serve(listener, health, Arc::new(metrics)) => {
                        if let Err(error) = result {
                            tracing::error!(%error, "health is not served any more");
                        }
                    }
                    // Whoever holds the other end never sends anything.
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self { address, _end: end })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return Ok(()) };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (health, metrics) = (Arc::clone(&health), Arc::clone(&metrics));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &health, &metrics);
                async { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let connection = http.serve_connection(TokioIo::new(stream), service);
            // A client that breaks off, or is too slow, is its own concern.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, health: &Health, metrics: &Metrics) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") if health.is_stuck() => {
            (StatusCode::SERVICE_UNAVAILABLE, TEXT, "stuck\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") if health.ready.load(Ordering::Relaxed) => {
            (StatusCode::OK, TEXT, "ready\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/metrics") => match metrics.text() {
            Ok(text) => (StatusCode::OK, Metrics::CONTENT_TYPE, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics have no text\n".to_owned()),
        },
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, TEXT, "there are /healthz, /readyz and /metrics\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
