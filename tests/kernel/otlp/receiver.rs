//! An OTLP/HTTP receiver that answers as a test says.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Queue, Sender, channel};

use anyhow::Result;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use prost::Message;

/// How to answer a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With this status and nothing else.
    Status(u16),
    /// With success for all but so many profiles, and a reason.
    Rejected(i64, &'static str),
    /// Never.
    Silence,
}

/// A running receiver; its thread lives as long as the process.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    requests: Queue<Bytes>,
}

impl Receiver {
    /// Starts one that gives these answers in their order, and the last one from then on.
    ///
    /// # Errors
    /// If there is no port or no thread.
    pub fn start(answers: &[Answer]) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (sender, requests) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let shared = Arc::new((answers.to_vec(), AtomicUsize::new(0)));
        std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || runtime.block_on(serve(listener, shared, sender)))?;
        Ok(Self { address, requests })
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that it got since the last call.
    ///
    /// # Errors
    /// If one is no request for profiles.
    pub fn requests(&self) -> Result<Vec<ExportProfilesServiceRequest>> {
        self.requests.try_iter().map(|body| Ok(ExportProfilesServiceRequest::decode(body)?)).collect()
    }
}

/// The answers, and how many were given.
type Answers = Arc<(Vec<Answer>, AtomicUsize)>;

async fn serve(listener: TcpListener, answers: Answers, requests: Sender<Bytes>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (answers, requests) = (Arc::clone(&answers), requests.clone());
        let service = service_fn(move |request| answer(request, Arc::clone(&answers), requests.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    requests: Sender<Bytes>,
) -> Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    // The test may be over.
    requests.send(body).ok();
    let (answers, given) = &*answers;
    let index = given.fetch_add(1, Ordering::Relaxed);
    let response = match answers.get(index).or(answers.last()) {
        Some(Answer::Status(status)) => Response::builder().status(*status).body(Full::default())?,
        Some(Answer::Rejected(profiles, reason)) => {
            let partial = ExportProfilesPartialSuccess {
                rejected_profiles: *profiles,
                error_message: (*reason).to_owned(),
            };
            let body = ExportProfilesServiceResponse { partial_success: Some(partial) }.encode_to_vec();
            Response::builder().header(CONTENT_TYPE, "application/x-protobuf").body(body.into())?
        }
        Some(Answer::Silence) | None => std::future::pending().await,
    };
    Ok(response)
}
