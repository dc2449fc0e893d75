//! A gRPC receiver made of the generated server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::profiles::v1development::profiles_service_server::{
    ProfilesService, ProfilesServiceServer,
};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// What the receiver answers; `None` hangs.
pub type GrpcAnswer = Option<Result<ExportProfilesServiceResponse, Status>>;

type Answers = dyn Fn(usize) -> GrpcAnswer + Send + Sync;
type Seen = Arc<Mutex<Vec<(MetadataMap, ExportProfilesServiceRequest)>>>;

/// A gRPC receiver; the answers get the number of the request, from 0.
pub struct GrpcReceiver {
    pub address: SocketAddr,
    pub seen: Seen,
}

struct Service {
    seen: Seen,
    answers: Box<Answers>,
}

impl GrpcReceiver {
    pub async fn start(answers: impl Fn(usize) -> GrpcAnswer + Send + Sync + 'static) -> Self {
        Self::start_tls(None, answers).await
    }

    pub async fn start_tls(
        tls: Option<ServerTlsConfig>,
        answers: impl Fn(usize) -> GrpcAnswer + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen::default();
        let service = Service { seen: Arc::clone(&seen), answers: Box::new(answers) };
        // Answers in the compression of the question, as the OpenTelemetry Collector does.
        let service = ProfilesServiceServer::new(service)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd);
        let server = Server::builder();
        let mut server = match tls {
            Some(tls) => server.tls_config(tls).unwrap(),
            None => server,
        };
        let serving = server.add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(async move { serving.await.unwrap() });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

#[tonic::async_trait]
impl ProfilesService for Service {
    async fn export(
        &self,
        request: Request<ExportProfilesServiceRequest>,
    ) -> Result<Response<ExportProfilesServiceResponse>, Status> {
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push((request.metadata().clone(), request.into_inner()));
            seen.len() - 1
        };
        match (self.answers)(number) {
            Some(answer) => answer.map(Response::new),
            None => {
                super::hang().await;
                Err(Status::internal("nobody waits that long"))
            }
        }
    }
}
