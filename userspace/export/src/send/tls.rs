//! TLS as the settings ask for it: rustls with ring, the system's roots or the given certificates,
//! and a client certificate for mutual TLS.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::error::SettingsError;
use super::settings::{NamedFile, TlsFiles};

/// A PEM file is at most this large; a whole distribution's CA bundle has a quarter of a megabyte.
const LARGEST_PEM_BYTES: u64 = 8 << 20;
const CERTIFICATES: &str = "at least one certificate";

/// Reads the files and builds the configuration.
pub(super) fn client_config(files: &TlsFiles) -> Result<ClientConfig, SettingsError> {
    let builder = builder()?.with_root_certificates(roots(files.certificate.as_ref())?);
    match &files.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = private_key(key)?;
            builder.with_client_auth_cert(chain, key).map_err(|source| SettingsError::Tls { source })
        }
    }
}

/// A configuration that trusts nobody, for connections that are not to be encrypted.
pub(super) fn without_roots() -> Result<ClientConfig, SettingsError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, SettingsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| SettingsError::Tls { source })
}

/// The given certificates alone, else the system's, else (an image without a CA bundle) Mozilla's.
fn roots(given: Option<&NamedFile>) -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = given {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|reason| unusable(file, reason.to_string(), CERTIFICATES))?;
        }
        return Ok(roots);
    }
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "some system certificates cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let pem = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|reason| unusable(file, reason.to_string(), CERTIFICATES))?;
    if certificates.is_empty() {
        return Err(unusable(file, "it holds no certificate".to_owned(), CERTIFICATES));
    }
    Ok(certificates)
}

fn private_key(file: &NamedFile) -> Result<PrivateKeyDer<'static>, SettingsError> {
    let expected = "one private key without a passphrase";
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|reason| unusable(file, reason.to_string(), expected))
}

fn read(file: &NamedFile) -> Result<Vec<u8>, SettingsError> {
    let mut pem = Vec::new();
    let opened = File::open(&file.path).map(|opened| opened.take(LARGEST_PEM_BYTES + 1));
    opened.and_then(|mut opened| opened.read_to_end(&mut pem)).map_err(|source| {
        SettingsError::Unreadable { variable: file.variable.clone(), path: file.path.clone(), source }
    })?;
    if pem.len() as u64 > LARGEST_PEM_BYTES {
        return Err(unusable(file, format!("it is larger than {LARGEST_PEM_BYTES} bytes"), CERTIFICATES));
    }
    Ok(pem)
}

fn unusable(file: &NamedFile, reason: String, expected: &'static str) -> SettingsError {
    SettingsError::Unusable { variable: file.variable.clone(), path: file.path.clone(), reason, expected }
}
