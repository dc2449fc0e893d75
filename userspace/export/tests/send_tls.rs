//! TLS and mutual TLS, by HTTP and by gRPC.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod send_support;

use std::path::Path;
use std::sync::Arc;

use descry_export::send::{DropReason, Outcome, Sender};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use send_support::grpc::GrpcReceiver;
use send_support::{HttpReceiver, answer, message, request, settings};
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// A private CA with a server's and a client's certificate, in a directory of PEM files.
struct Pki {
    directory: tempfile::TempDir,
    ca: String,
    server: (String, String),
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let client = issue("client");
        let pki = Self { ca: issuer.pem(), server: issue("127.0.0.1"), directory };
        std::fs::write(pki.path("ca.pem"), &pki.ca).unwrap();
        std::fs::write(pki.path("client.pem"), client.0).unwrap();
        std::fs::write(pki.path("client.key"), client.1).unwrap();
        pki
    }

    fn path(&self, file: &str) -> String {
        self.directory.path().join(file).to_str().unwrap().to_owned()
    }

    fn http_acceptor(&self, mutual: bool) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(self.server.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap();
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(ca).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }

    fn grpc_config(&self, mutual: bool) -> ServerTlsConfig {
        let config = ServerTlsConfig::new().identity(Identity::from_pem(&self.server.0, &self.server.1));
        if mutual { config.client_ca_root(Certificate::from_pem(&self.ca)) } else { config }
    }

    /// Sends by HTTP and by gRPC to a server with this PKI.
    async fn send_both(&self, mutual: bool, variables: &[(&str, &str)]) -> [Outcome; 2] {
        let http = HttpReceiver::start_tls(Some(self.http_acceptor(mutual)), |_| answer(200, &[], "")).await;
        let ok = |_| Some(Ok(ExportProfilesServiceResponse::default()));
        let grpc = GrpcReceiver::start_tls(Some(self.grpc_config(mutual)), ok).await;
        let mut outcomes = Vec::new();
        for (protocol, address) in [("http/protobuf", http.address), ("grpc", grpc.address)] {
            let variables: Vec<_> =
                [("PROTOCOL", protocol)].into_iter().chain(variables.iter().copied()).collect();
            outcomes.push(send_support::send(&format!("https://{address}"), &variables, 1).await);
        }
        outcomes.try_into().unwrap()
    }
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_named() {
    let pki = Pki::new();
    for outcome in pki.send_both(false, &[("CERTIFICATE", &pki.path("ca.pem"))]).await {
        assert_eq!(outcome.sent_items, 1, "{outcome:?}");
    }
}

#[tokio::test]
async fn an_unknown_ca_is_refused_at_once() {
    let (pki, other) = (Pki::new(), Pki::new());
    for variables in [vec![], vec![("CERTIFICATE", other.path("ca.pem"))]] {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for outcome in pki.send_both(false, &variables).await {
            assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::Tls), Some(&1), "{outcome:?}");
            assert_eq!(outcome.retries, 0);
            let message = message(&outcome);
            assert!(message.contains("certificate"), "{message}");
            assert!(message.contains("OTEL_EXPORTER_OTLP_CERTIFICATE"), "{message}");
        }
    }
}

#[tokio::test]
async fn mutual_tls() {
    let pki = Pki::new();
    let (ca, certificate, key) = (pki.path("ca.pem"), pki.path("client.pem"), pki.path("client.key"));
    let variables: [(&str, &str); 3] =
        [("CERTIFICATE", &ca), ("CLIENT_CERTIFICATE", &certificate), ("CLIENT_KEY", &key)];
    for outcome in pki.send_both(true, &variables).await {
        assert_eq!(outcome.sent_items, 1, "{outcome:?}");
    }
    // Without the client's certificate the server says so.
    for outcome in pki.send_both(true, &[("CERTIFICATE", &ca), ("TIMEOUT", "3000")]).await {
        assert_eq!(outcome.sent_requests, 0);
        assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::Tls), Some(&1), "{outcome:?}");
        assert!(message(&outcome).contains("CLIENT_CERTIFICATE"), "{}", message(&outcome));
    }
}

#[tokio::test]
async fn a_server_without_tls_is_named() {
    let receiver = HttpReceiver::start(|_| answer(200, &[], "")).await;
    let outcome = send_support::send(&format!("https://{}", receiver.address), &[], 1).await;
    assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::Tls), Some(&1), "{outcome:?}");
    assert!(message(&outcome).contains("plain http"), "{}", message(&outcome));
}

fn check_unusable(variables: &[(&str, &str)], variable: &str, path: &Path) {
    let settings = settings("https://127.0.0.1:1", variables);
    let error = Sender::<
        opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest,
    >::new(settings)
    .unwrap_err()
    .to_string();
    assert!(error.starts_with(&format!("OTEL_EXPORTER_OTLP_{variable} names {}", path.display())), "{error}");
}

#[test]
fn unusable_files_are_named() {
    let pki = Pki::new();
    let (ca, key, missing) = (pki.path("ca.pem"), pki.path("client.key"), pki.path("missing"));
    check_unusable(&[("CERTIFICATE", &missing)], "CERTIFICATE", missing.as_ref());
    check_unusable(&[("CERTIFICATE", &key)], "CERTIFICATE", key.as_ref());
    let swapped = [("CLIENT_CERTIFICATE", ca.as_str()), ("CLIENT_KEY", ca.as_str())];
    check_unusable(&swapped, "CLIENT_KEY", ca.as_ref());
    // Without https no file is read.
    let settings = settings("http://127.0.0.1:1", &[("CERTIFICATE", &missing)]);
    let sender = Sender::new(settings).unwrap();
    assert!(sender.send_blocking([]).unwrap().is_complete());
    drop(sender.send([request(1)]));
}
