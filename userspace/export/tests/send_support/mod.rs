//! Receivers on loopback sockets that answer as a test says, and requests to send to them.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses its own part")]

pub mod grpc;

use std::collections::HashMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use descry_export::send::{Outcome, Sender, Settings, Signal};
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::profiles::v1development::{
    Profile, ProfilesDictionary, ResourceProfiles, Sample, ScopeProfiles,
};
use tokio_rustls::TlsAcceptor;

/// A request of that many profiles, large enough to be worth compressing.
pub fn request(profiles: usize) -> ExportProfilesServiceRequest {
    let sample = Sample { stack_index: 1, values: vec![10, 20], ..Sample::default() };
    let profile = Profile { samples: vec![sample; 100], duration_nano: 5, ..Profile::default() };
    let scope = ScopeProfiles { profiles: vec![profile; profiles], ..ScopeProfiles::default() };
    ExportProfilesServiceRequest {
        resource_profiles: vec![ResourceProfiles {
            scope_profiles: vec![scope],
            ..ResourceProfiles::default()
        }],
        dictionary: Some(ProfilesDictionary {
            string_table: vec![String::new(), "main".to_owned()],
            ..ProfilesDictionary::default()
        }),
    }
}

/// Settings for profiles from an environment of these variables, `OTEL_EXPORTER_OTLP_` left out.
pub fn settings(endpoint: &str, variables: &[(&str, &str)]) -> Settings {
    settings_of(Signal::PROFILES, endpoint, variables)
}

/// As [`settings`], for any signal.
pub fn settings_of(signal: Signal, endpoint: &str, variables: &[(&str, &str)]) -> Settings {
    let mut variables: HashMap<_, _> = variables
        .iter()
        .map(|(name, value)| (format!("OTEL_EXPORTER_OTLP_{name}"), (*value).to_owned()))
        .collect();
    variables.insert("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint.to_owned());
    Settings::from_env(signal, |name| variables.get(name).cloned()).unwrap()
}

/// Sends one request of `profiles` profiles.
pub async fn send(endpoint: &str, variables: &[(&str, &str)], profiles: usize) -> Outcome {
    let sender = Sender::new(settings(endpoint, variables)).unwrap();
    sender.send([request(profiles)]).await
}

/// The first failure's message.
pub fn message(outcome: &Outcome) -> String {
    outcome.first_error.as_ref().unwrap().to_string()
}

/// A free port on loopback, where nobody listens.
pub fn nobody() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// What the HTTP receiver saw.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body without its compression.
    pub fn plain_body(&self) -> Vec<u8> {
        match self.header("content-encoding") {
            "gzip" => {
                let mut plain = Vec::new();
                std::io::Read::read_to_end(&mut GzDecoder::new(&self.body[..]), &mut plain).unwrap();
                plain
            }
            "zstd" => zstd::decode_all(&self.body[..]).unwrap(),
            "" => self.body.to_vec(),
            other => panic!("content-encoding {other}"),
        }
    }
}

/// An answer: status, headers, body; `None` hangs.
pub type Answer = Option<Response<Full<Bytes>>>;

pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Some(response.body(Full::new(body.into())).unwrap())
}

/// An HTTP/1.1 receiver; `answers` gets the number of the request, from 0.
pub struct HttpReceiver {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl HttpReceiver {
    pub async fn start(answers: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_tls(None, answers).await
    }

    pub async fn start_tls(
        tls: Option<TlsAcceptor>,
        answers: impl Fn(usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (store, answers) = (Arc::clone(&seen), Arc::new(answers));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (store, answers, tls) = (Arc::clone(&store), Arc::clone(&answers), tls.clone());
                let service =
                    service_fn(move |request| respond(request, Arc::clone(&store), Arc::clone(&answers)));
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // A client that goes away is part of some tests.
                    let _ended = match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => return,
                        },
                    };
                });
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn respond(
    request: Request<Incoming>,
    store: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<impl Fn(usize) -> Answer>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let seen = Seen { path: parts.uri.path().to_owned(), headers: parts.headers, body };
    let number = {
        let mut store = store.lock().unwrap();
        store.push(seen);
        store.len() - 1
    };
    match answers(number) {
        Some(response) => Ok(response),
        None => {
            hang().await;
            Ok(Response::default())
        }
    }
}

/// Longer than any test waits.
pub fn hang() -> impl Future<Output = ()> {
    tokio::time::sleep(Duration::from_secs(3600))
}
