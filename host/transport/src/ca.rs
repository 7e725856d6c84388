//! The group's own certificate authority: makes it, reads it back, issues certificates with it.
//!
//! Holds: an authority's name is a single common name of 1 to 64 bytes, so that it can be read back
//! out of its certificate without a full X.509 parser; a host's certificate carries
//! [`SERVER_NAME`] and may act on both ends of a connection, a client's only on the calling end.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::RootCertStore;

use crate::tls::{Identity, SERVER_NAME, TlsError, certificates};

/// Days that an authority is valid.
const AUTHORITY_DAYS: u32 = 3_650;
/// Days that any certificate may be valid at most.
pub const DAYS_MAX: u32 = 3_650;
/// Bytes of an authority's name or a common name: X.520's upper bound.
pub const COMMON_NAME_BYTES_MAX: usize = 64;
/// Clocks of a group may differ by this much when a certificate is fresh.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3_600);

/// Why a certificate could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// The authority's certificate is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority was made by another program.
    #[error(
        "the CA certificate's subject is not a single common name; use a CA that maitred made, or have your own CA issue the certificates"
    )]
    Foreign,
    /// The authority's key is not usable.
    #[error("the CA's private key cannot be used: {0}")]
    Key(String),
    /// A name or number is out of bounds.
    #[error("{field} {got:?} must be {bounds}")]
    OutOfBounds {
        /// Which one.
        field: &'static str,
        /// What was given.
        got: String,
        /// What it must be.
        bounds: &'static str,
    },
    /// The certificate could not be put together or signed.
    #[error("could not make the certificate: {0}")]
    Make(String),
}

fn make(error: rcgen::Error) -> CaError {
    CaError::Make(error.to_string())
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IssueKind {
    /// A host: takes connections, and calls its peers.
    Host,
    /// A client or a node: calls hosts.
    Client,
}

/// A new certificate and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key: PKCS#8, and a secret.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// A group's certificate authority, with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

impl Authority {
    /// Makes a new one (ECDSA P-256), valid for ten years.
    ///
    /// # Errors
    /// [`CaError::OutOfBounds`] when `name` is not 1 to 64 bytes; [`CaError::Make`].
    pub fn generate(name: &str) -> Result<Self, CaError> {
        let mut params = params(name, AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(make)?;
        let made = CertifiedIssuer::self_signed(params, key).map_err(make)?;
        let (cert_pem, key_pem) = (made.pem(), made.key().serialize_pem());
        Self::from_pem(&cert_pem, &key_pem)
    }

    /// Reads one back.
    ///
    /// # Errors
    /// [`CaError::Tls`] and [`CaError::Key`] name the text that is unusable; [`CaError::Foreign`]
    /// when the certificate was not made by [`Authority::generate`].
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let what = "CA certificate";
        let found = certificates(what, "the given text", cert_pem.as_bytes())?;
        let mut roots = RootCertStore::empty();
        for cert in found {
            let added = roots.add(cert);
            added.map_err(|error| TlsError::Authority(error.to_string()))?;
        }
        let anchor = roots.roots.first().ok_or(CaError::Foreign)?;
        let name = common_name(anchor.subject.as_ref()).ok_or(CaError::Foreign)?;
        let key = KeyPair::from_pem(key_pem).map_err(|error| CaError::Key(error.to_string()))?;
        let public = anchor.subject_public_key_info.as_ref();
        if !key.subject_public_key_info().ends_with(public) {
            let problem = "it is not the key of the CA certificate";
            return Err(CaError::Key(problem.to_owned()));
        }
        let mut params = params(name, AUTHORITY_DAYS)?;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self {
            issuer: Issuer::new(params, key),
            cert_pem: cert_pem.to_owned(),
        })
    }

    /// The certificate: what everybody in the group must be given.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The key: whoever has it can join the group as anyone.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate for `common_name` (1 to 64 bytes), valid for `days` (1 to 3,650) from
    /// now. `names` and `addresses` are added to it; a host's gets [`SERVER_NAME`] in any case.
    ///
    /// # Errors
    /// [`CaError::OutOfBounds`] names the argument; [`CaError::Make`].
    pub fn issue(
        &self,
        common_name: &str,
        kind: IssueKind,
        names: &[String],
        addresses: &[IpAddr],
        days: u32,
    ) -> Result<Issued, CaError> {
        let mut params = params(common_name, days)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
        if kind == IssueKind::Host {
            let usages = &mut params.extended_key_usages;
            usages.insert(0, ExtendedKeyUsagePurpose::ServerAuth);
            all.insert(0, SERVER_NAME);
        }
        for name in all {
            let dns = name.try_into().map_err(|_| CaError::OutOfBounds {
                field: "name",
                got: name.to_owned(),
                bounds: "a DNS name in ASCII",
            })?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        let addresses = addresses.iter().map(|&ip| SanType::IpAddress(ip));
        params.subject_alt_names.extend(addresses);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(make)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Issued {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Issues a certificate and makes an [`Identity`] of it at once, for programs that are their
    /// own group (development, tests). Valid for `days`.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn identity(
        &self,
        common_name: &str,
        kind: IssueKind,
        days: u32,
    ) -> Result<Identity, CaError> {
        let issued = self.issue(common_name, kind, &[], &[], days)?;
        let (cert, key) = (issued.cert_pem.as_bytes(), issued.key_pem.as_bytes());
        Ok(Identity::from_pem(self.cert_pem.as_bytes(), cert, key)?)
    }
}

fn params(common_name: &str, days: u32) -> Result<CertificateParams, CaError> {
    if common_name.is_empty() || common_name.len() > COMMON_NAME_BYTES_MAX {
        return Err(CaError::OutOfBounds {
            field: "common name",
            got: common_name.chars().take(80).collect(),
            bounds: "1 to 64 bytes",
        });
    }
    if days == 0 || days > DAYS_MAX {
        return Err(CaError::OutOfBounds {
            field: "days",
            got: days.to_string(),
            bounds: "1 to 3,650",
        });
    }
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 86_400)).into();
    Ok(params)
}

/// Reads `SET { SEQUENCE { 2.5.4.3, UTF8String name } }`, which is how rcgen writes a subject with
/// nothing but a common name; every length fits one byte because the name has at most 64.
fn common_name(subject: &[u8]) -> Option<&str> {
    let (_, set) = subject
        .split_first_chunk::<2>()
        .filter(|(head, rest)| head[0] == 0x31 && usize::from(head[1]) == rest.len())?;
    let (_, pair) = set
        .split_first_chunk::<2>()
        .filter(|(head, rest)| head[0] == 0x30 && usize::from(head[1]) == rest.len())?;
    let value = pair.strip_prefix(&[0x06, 0x03, 0x55, 0x04, 0x03, 0x0c])?;
    let (length, name) = value.split_first()?;
    if usize::from(*length) != name.len() || name.len() > COMMON_NAME_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_reads_back_and_issues_what_the_first_one_would() {
        let first = Authority::generate("games ä").unwrap();
        let again = Authority::from_pem(first.cert_pem(), &first.key_pem()).unwrap();
        for authority in [&first, &again] {
            authority.identity("host-1", IssueKind::Host, 30).unwrap();
        }
        assert_eq!(first.cert_pem(), again.cert_pem());
    }

    #[test]
    fn another_authoritys_key_is_refused() {
        let one = Authority::generate("one").unwrap();
        let two = Authority::generate("one").unwrap();
        let mixed = Authority::from_pem(one.cert_pem(), &two.key_pem());
        assert!(matches!(mixed.err().unwrap(), CaError::Key(text) if text.contains("not the key")));
    }

    #[test]
    fn names_and_days_have_bounds() {
        assert!(Authority::generate("").is_err());
        assert!(Authority::generate(&"x".repeat(65)).is_err());
        let authority = Authority::generate(&"x".repeat(64)).unwrap();
        for days in [0, DAYS_MAX + 1] {
            let issued = authority.issue("a", IssueKind::Client, &[], &[], days);
            assert!(matches!(issued, Err(CaError::OutOfBounds { .. })));
        }
        let odd = ["höst".to_owned()];
        assert!(authority.issue("a", IssueKind::Host, &odd, &[], 1).is_err());
    }

    #[test]
    fn a_foreign_subject_is_told_apart() {
        assert_eq!(common_name(b""), None);
        assert_eq!(
            common_name(b"\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01a"),
            Some("a")
        );
        assert_eq!(
            common_name(b"\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x0c\x01a"),
            None
        );
        assert_eq!(
            common_name(b"\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x02a"),
            None
        );
    }
}
