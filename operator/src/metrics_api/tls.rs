//! What TLS needs, made of our certificates and of whom we believe.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use secrecy::ExposeSecret;

use super::certificates::Generations;
use super::identity::Trust;

/// What connections are served with from now on.
#[derive(Debug)]
pub struct Serving {
    /// For TLS.
    pub config: Arc<ServerConfig>,
    /// For what TLS does not check.
    pub trust: Trust,
    /// PEM of the certificate that is shown.
    certificate: String,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is none.
    #[error("there is no certificate to serve with")]
    NoCertificate,
    /// Not PEM. What it is instead is not said: it may be a key.
    #[error("{0} is not PEM of the kind that belongs there")]
    Pem(&'static str),
    /// Refused.
    #[error("certificates cannot be used: {0}")]
    Refused(String),
}

impl Serving {
    /// What to serve with now. A client without a certificate gets through to be told so; one with a certificate that is not
    /// of the front proxy's authority does not.
    pub fn new(trust: Trust, generations: &Generations, now: i64) -> Result<Self, TlsError> {
        let generation = generations.serving(now).ok_or(TlsError::NoCertificate)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&trust.authorities, "requestheader-client-ca-file")? {
            roots.add(authority).map_err(|error| TlsError::Refused(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
        let verifier = verifier.map_err(|error| TlsError::Refused(error.to_string()))?;
        let chain = certificates(&generation.certificate, "the serving certificate")?;
        let key = PrivateKeyDer::from_pem_slice(generation.key.expose_secret().as_bytes());
        let key = key.map_err(|_| TlsError::Pem("the serving key"))?;
        let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key);
        let mut config = config.map_err(|error| TlsError::Refused(error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), trust, certificate: generation.certificate.clone() })
    }

    /// True when connections of the other one are as good.
    pub fn is_same(&self, other: &Self) -> bool {
        self.trust == other.trust && self.certificate == other.certificate
    }
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(TlsError::Pem(what))
}
