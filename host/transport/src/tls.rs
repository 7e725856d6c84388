//! Who may talk to whom: identities of a group and the TLS settings made from them.
//!
//! Holds: TLS 1.3 only; both sides show a certificate of the group's own authority and nothing else
//! is trusted (no system roots); a host's certificate carries the name `maitred`, which is what
//! clients check, so hosts may have any address; no early data. The crypto provider is named
//! everywhere, because a second one in the build would make rustls' default panic.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::Connection;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};

/// The DNS name that every host's certificate carries and that clients verify.
pub const SERVER_NAME: &str = "maitred";

/// Bytes of a PEM file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a connection is for; agreed on in its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// Requests of clients and nodes.
    Client,
    /// Replicas of one group among each other.
    Peer,
}

impl Alpn {
    /// Name and major version, as in the handshake.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "maitred-client/1",
            Self::Peer => "maitred-peer/1",
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        [Self::Client, Self::Peer]
            .into_iter()
            .find(|alpn| alpn.as_str().as_bytes() == bytes)
    }
}

/// Why certificates or a key cannot be used. All are for an operator to mend; none passes by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} file {}: {problem}; check the path and its permissions", path.display())]
    File {
        /// `CA certificate`, `certificate` or `private key`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// A text is not PEM of the expected kind.
    #[error("{place} holds no usable {what}: {problem}; it must be a PEM text with one")]
    Pem {
        /// `CA certificate`, `certificate` or `private key`.
        what: &'static str,
        /// The file, or `the given text`.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error(
        "the certificate and the private key cannot be used together: {0}; issue both again with the group's CA"
    )]
    Pair(String),
    /// The certificate is not one that a host can show to clients of its group.
    #[error(
        "clients would not accept the host's certificate: {0}; issue one with the group's CA as kind host (`maitred cert issue --kind host`)"
    )]
    Host(&'static str),
    /// The CA certificate cannot serve as one.
    #[error(
        "the CA certificate cannot be used to verify others: {0}; give the certificate that the group's CA was made with"
    )]
    Authority(String),
}

/// Who this program is within its group: a certificate, its key, and the authority that both sides
/// of every connection must have been issued by.
pub struct Identity {
    ca: Vec<CertificateDer<'static>>,
    cert: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads PEM texts. `cert` may be a chain, the own certificate first.
    ///
    /// # Errors
    /// [`TlsError`] names the text and what is wrong with it.
    pub fn from_pem(ca: &[u8], cert: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let text = "the given text";
        let identity = Self {
            ca: certificates("CA certificate", text, ca)?,
            cert: certificates("certificate", text, cert)?,
            key: private_key(text, key)?,
        };
        identity.check()
    }

    /// Reads PEM files.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn from_files(ca: &Path, cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let named = |path: &Path| format!("the file {}", path.display());
        let ca_text = read("CA certificate", ca)?;
        let cert_text = read("certificate", cert)?;
        let key_text = read("private key", key)?;
        let identity = Self {
            ca: certificates("CA certificate", &named(ca), &ca_text)?,
            cert: certificates("certificate", &named(cert), &cert_text)?,
            key: private_key(&named(key), &key_text)?,
        };
        identity.check()
    }

    /// Finds out now what would otherwise fail at the first connection.
    fn check(self) -> Result<Self, TlsError> {
        self.server(&[Alpn::Client])?;
        Ok(self)
    }

    /// Finds out whether clients will accept this as a host's, today.
    ///
    /// # Errors
    /// [`TlsError::Host`] says why they will not.
    pub fn check_host(&self) -> Result<(), TlsError> {
        self.check_chain(&self.cert)
    }

    fn check_chain(&self, chain: &[CertificateDer<'static>]) -> Result<(), TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|error| TlsError::Authority(error.to_string()))?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|_| TlsError::Host("no name"))?;
        let (own, chain) = chain.split_first().ok_or(TlsError::Host("no chain"))?;
        let verified = verifier.verify_server_cert(own, chain, &name, &[], UnixTime::now());
        match verified {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(problem)) => Err(TlsError::Host(why(&problem))),
            Err(_) => Err(TlsError::Host("it cannot be verified")),
        }
    }

    /// Whether the other side of a connection showed a certificate that a host of the group has: one
    /// for clients is not enough to speak as a replica.
    ///
    /// # Errors
    /// [`TlsError::Host`] says what is wrong with it.
    pub fn check_peer(&self, connection: &Connection) -> Result<(), TlsError> {
        let shown = connection
            .peer_identity()
            .and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok())
            .ok_or(TlsError::Host("none was shown"))?;
        self.check_chain(&shown)
    }

    /// A secret of its own for every purpose, the same at every start: made from the private key.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.key.secret_der())
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for ca in &self.ca {
            let added = roots.add(ca.clone());
            added.map_err(|error| TlsError::Authority(error.to_string()))?;
        }
        Ok(Arc::new(roots))
    }

    pub(crate) fn server(&self, alpns: &[Alpn]) -> Result<Arc<QuicServerConfig>, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|error| TlsError::Authority(error.to_string()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.cert.clone(), self.key.clone_key())
            .map_err(pair)?;
        config.alpn_protocols = protocols(alpns);
        config.max_early_data_size = 0;
        let quic = QuicServerConfig::try_from(config);
        Ok(Arc::new(
            quic.map_err(|error| TlsError::Pair(error.to_string()))?,
        ))
    }

    pub(crate) fn client(&self, alpn: Alpn) -> Result<Arc<QuicClientConfig>, TlsError> {
        let config = self.client_builder()?;
        let config = config.with_client_auth_cert(self.cert.clone(), self.key.clone_key());
        client_quic(config.map_err(pair)?, protocols(&[alpn]))
    }

    /// Without a certificate or with another ALPN: what a stranger would send, for tests.
    #[cfg(test)]
    pub(crate) fn stranger(&self, alpn: &[u8], show: bool) -> Arc<QuicClientConfig> {
        let builder = self.client_builder().unwrap();
        let config = if show {
            builder.with_client_auth_cert(self.cert.clone(), self.key.clone_key())
        } else {
            Ok(builder.with_no_client_auth())
        };
        client_quic(config.unwrap(), vec![alpn.to_vec()]).unwrap()
    }

    fn client_builder(
        &self,
    ) -> Result<
        rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>,
        TlsError,
    > {
        Ok(rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(pair)?
            .with_root_certificates(self.roots()?))
    }
}

fn why(problem: &CertificateError) -> &'static str {
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it was not issued by the CA given with it"
        }
        CertificateError::NotValidForName
        | CertificateError::NotValidForNameContext { .. }
        | CertificateError::InvalidPurpose
        | CertificateError::InvalidPurposeContext { .. } => "it is not of the kind for hosts",
        _ => "it is damaged, or of a form that is not supported",
    }
}

fn client_quic(
    mut config: rustls::ClientConfig,
    alpns: Vec<Vec<u8>>,
) -> Result<Arc<QuicClientConfig>, TlsError> {
    config.alpn_protocols = alpns;
    config.enable_early_data = false;
    let quic = QuicClientConfig::try_from(config);
    Ok(Arc::new(
        quic.map_err(|error| TlsError::Pair(error.to_string()))?,
    ))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn protocols(alpns: &[Alpn]) -> Vec<Vec<u8>> {
    alpns.iter().map(|alpn| alpn.as_str().into()).collect()
}

fn pair(error: rustls::Error) -> TlsError {
    TlsError::Pair(match error {
        rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
        other => other.to_string(),
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |problem: String| TlsError::File {
        what,
        path: path.to_owned(),
        problem,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut file = std::io::Read::take(file, FILE_BYTES_MAX + 1);
    std::io::Read::read_to_end(&mut file, &mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed("it is longer than 1 MiB".to_owned()));
    }
    Ok(bytes)
}

fn pem_error(what: &'static str, place: &str, problem: String) -> TlsError {
    TlsError::Pem {
        what,
        place: place.to_owned(),
        problem,
    }
}

pub(crate) fn certificates(
    what: &'static str,
    place: &str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            let problem = "there is no CERTIFICATE section in it".to_owned();
            Err(pem_error(what, place, problem))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(pem_error(what, place, error.to_string())),
    }
}

fn private_key(place: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let problem = match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                "there is no PRIVATE KEY section in it".to_owned()
            }
            other => other.to_string(),
        };
        pem_error("private key", place, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Authority, IssueKind};

    #[test]
    fn a_host_finds_out_by_itself_that_clients_would_not_accept_it() {
        let ours = Authority::generate("ours").unwrap();
        let host = ours.issue("h", IssueKind::Host, &[], &[], 1).unwrap();
        let client = ours.issue("c", IssueKind::Client, &[], &[], 1).unwrap();
        let other = Authority::generate("ours").unwrap();
        let check = |ca: &Authority, issued: &crate::ca::Issued| {
            let ca = ca.cert_pem().as_bytes();
            let (cert, key) = (issued.cert_pem.as_bytes(), issued.key_pem.as_bytes());
            Identity::from_pem(ca, cert, key).unwrap().check_host()
        };
        assert_eq!(check(&ours, &host), Ok(()));
        let kind = TlsError::Host("it is not of the kind for hosts");
        assert_eq!(check(&ours, &client), Err(kind));
        let issuer = TlsError::Host("it was not issued by the CA given with it");
        assert_eq!(check(&other, &host), Err(issuer));
    }

    #[test]
    fn a_file_that_never_ends_is_no_certificate() {
        let error = read("certificate", Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("longer than 1 MiB"), "{error}");
    }
}
