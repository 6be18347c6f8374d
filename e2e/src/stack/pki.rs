//! Certificates for one throw-away stack: ECDSA P-256, PEM files, PKCS #8 keys.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::error::StackError;
use super::files;

/// A certificate authority whose certificate and key lie in a folder.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    certificate: PathBuf,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Whom a certificate is for.
pub(crate) struct Subject<'a> {
    pub(crate) common_name: &'a str,
    pub(crate) organization: Option<&'a str>,
    pub(crate) names: &'a [&'a str],
    pub(crate) addresses: &'a [IpAddr],
}

impl<'a> Subject<'a> {
    /// A server known by addresses and `localhost`.
    pub(crate) fn server(common_name: &'a str, addresses: &'a [IpAddr]) -> Self {
        Self { common_name, organization: None, names: &["localhost"], addresses }
    }

    /// A client known by its name alone.
    pub(crate) fn client(common_name: &'a str, organization: Option<&'a str>) -> Self {
        Self { common_name, organization, names: &[], addresses: &[] }
    }
}

impl Authority {
    /// Makes a new authority and writes `NAME.crt` and `NAME.key`.
    pub(crate) fn create(folder: &Path, name: &str) -> Result<Self, StackError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("sluice local stack {name}"));
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key_pair = KeyPair::generate()?;
        let certificate = folder.join(format!("{name}.crt"));
        files::write(&certificate, &params.self_signed(&key_pair)?.pem())?;
        files::write_private(&folder.join(format!("{name}.key")), &key_pair.serialize_pem())?;
        Ok(Self { issuer: Issuer::new(params, key_pair), folder: folder.to_owned(), certificate })
    }

    /// The file with the authority's certificate.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Signs a new key for both server and client use, and writes `FILE.crt` and `FILE.key`.
    pub(crate) fn issue(&self, file: &str, subject: &Subject<'_>) -> Result<Identity, StackError> {
        let mut params = CertificateParams::new(subject.names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, subject.common_name);
        if let Some(organization) = subject.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.subject_alt_names.extend(subject.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key_pair = KeyPair::generate()?;
        let identity = Identity {
            certificate: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        files::write(&identity.certificate, &params.signed_by(&key_pair, &self.issuer)?.pem())?;
        files::write_private(&identity.key, &key_pair.serialize_pem())?;
        Ok(identity)
    }
}

/// A key pair that signs nothing but tokens: `NAME.key` and `NAME.pub`.
pub(crate) fn signing_key(folder: &Path, name: &str) -> Result<(), StackError> {
    let key_pair = KeyPair::generate()?;
    files::write_private(&folder.join(format!("{name}.key")), &key_pair.serialize_pem())?;
    files::write(&folder.join(format!("{name}.pub")), &key_pair.public_key_pem())
}
