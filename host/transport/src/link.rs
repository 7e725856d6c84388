//! Why there is no connection, or no longer one, in words that a person understands.
//!
//! Everything that quinn and rustls say about a connection passes through here; their own texts end
//! here. TLS tells failures apart by alerts, and which side raised one says whose certificate is
//! meant.

use std::net::SocketAddr;

use quinn::{Connection, ConnectionError, VarInt};

/// Why one side closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing more is wanted.
    Done = 0,
    /// The host is shutting down; another one may do.
    ShuttingDown = 1,
    /// The other side sent something that is not the protocol, or of another version.
    Protocol = 2,
    /// A limit was hit; the reason names it.
    Limit = 3,
    /// The caller is not one that this host talks to; the reason says why.
    Refused = 4,
    /// A code that this version does not know.
    Unknown = u32::MAX,
}

impl CloseCode {
    fn from_wire(code: VarInt) -> Self {
        match code.into_inner() {
            0 => Self::Done,
            1 => Self::ShuttingDown,
            2 => Self::Protocol,
            3 => Self::Limit,
            4 => Self::Refused,
            _ => Self::Unknown,
        }
    }
}

/// Closes a connection; the other side sees `code` and `reason` (cut to 256 bytes).
pub fn close(connection: &Connection, code: CloseCode, reason: &str) {
    let reason = reason.as_bytes();
    let reason = &reason[..reason.len().min(256)];
    connection.close(VarInt::from_u32(code as u32), reason);
}

/// Why a connection could not be made, or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No answer in time.
    #[error(
        "no answer from {address} within {millis} ms; check the address, that the host runs, and that UDP passes"
    )]
    NoAnswer {
        /// Who was called.
        address: SocketAddr,
        /// For how long.
        millis: u64,
    },
    /// The host takes no new connections just now.
    #[error("the host refused the connection because it has too many; try again later")]
    Refused,
    /// The host's certificate was issued by somebody else.
    #[error(
        "the certificate of the host that was called was not issued by the CA given here; use the CA certificate of that host's group"
    )]
    HostUnknown,
    /// The host does not accept the certificate shown here.
    #[error(
        "the host that was called does not accept the certificate given here: it was not issued by that host's CA; use one that was"
    )]
    CertificateUnknown,
    /// The host's certificate is not valid today.
    #[error(
        "the host's certificate has expired or is not valid yet; issue a new one, or set the clock right"
    )]
    HostExpired,
    /// The certificate shown here is not valid today.
    #[error(
        "the certificate shown to the host has expired or is not valid yet; issue a new one, or set the clock right"
    )]
    CertificateExpired,
    /// The host's certificate is not one for hosts.
    #[error(
        "the host's certificate is not one for hosts (it lacks the name `maitred` or the server purpose); issue it as kind host"
    )]
    NotAHost,
    /// No certificate was shown.
    #[error("the host demands a certificate; give one that was issued by its CA")]
    CertificateMissing,
    /// The certificate shown is not usable.
    #[error(
        "the host cannot use the certificate shown to it (damaged, or of the wrong kind); issue a new one as kind client"
    )]
    CertificateUnusable,
    /// The other side does not speak the protocol asked for.
    #[error(
        "the other side does not speak the protocol asked for; upgrade the older program, or check that the address is that of a maitred host"
    )]
    Protocol,
    /// The other side closed it.
    #[error("closed by the other side ({code:?}): {reason}")]
    Closed {
        /// Why.
        code: CloseCode,
        /// In words, at most 256 bytes.
        reason: String,
    },
    /// The other side closed it before the handshake was done: it has no more use for it, or it stops.
    #[error("the other side went away while the connection was being made")]
    WentAway,
    /// Nothing was heard for the idle time-out, or the other side restarted.
    #[error("the connection was lost: nothing heard from the other side, or it restarted")]
    Lost,
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// The address cannot be called from here.
    #[error("cannot call {address}: {problem}")]
    Address {
        /// Who.
        address: SocketAddr,
        /// What is wrong.
        problem: String,
    },
    /// The name of the host leads nowhere.
    #[error(
        "cannot find the address of {endpoint}: {problem}; check that it is HOST:PORT, its spelling, and the name service"
    )]
    Unresolved {
        /// As it was given.
        endpoint: String,
        /// What the system said.
        problem: String,
    },
    /// The other side broke the rules of QUIC or TLS.
    #[error("the two sides do not understand each other ({0}); check the versions of both")]
    Broken(String),
}

impl LinkError {
    /// Whether trying again as it is cannot help: certificates or versions must be mended first.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::HostUnknown
            | Self::CertificateUnknown
            | Self::HostExpired
            | Self::CertificateExpired
            | Self::NotAHost
            | Self::CertificateMissing
            | Self::CertificateUnusable
            | Self::Protocol => true,
            Self::Closed { code, .. } => *code == CloseCode::Protocol,
            Self::NoAnswer { .. }
            | Self::Refused
            | Self::WentAway
            | Self::Lost
            | Self::Local
            | Self::Address { .. }
            | Self::Unresolved { .. }
            | Self::Broken(_) => false,
        }
    }

    /// Whether certificates must be mended, rather than versions.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        self.is_fatal() && !matches!(self, Self::Protocol | Self::Closed { .. })
    }

    /// The alert `number`, raised by this side about the other one, or the other way round.
    fn from_alert(number: u64, raised_here: bool) -> Option<Self> {
        Some(match (number, raised_here) {
            (48 | 51, true) => Self::HostUnknown,
            (48 | 51, false) => Self::CertificateUnknown,
            (45, true) => Self::HostExpired,
            (45, false) => Self::CertificateExpired,
            (42..=44 | 46, true) => Self::NotAHost,
            (42..=44 | 46, false) => Self::CertificateUnusable,
            (116, _) => Self::CertificateMissing,
            (70 | 120, _) => Self::Protocol,
            _ => return None,
        })
    }
}

const CRYPTO_ERROR: u64 = 0x100;
const CONNECTION_REFUSED: u64 = 0x2;
/// What stands for an application's close until the handshake is done (RFC 9000, 10.2.3).
const APPLICATION_ERROR: u64 = 0xc;

fn from_code(code: u64, reason: &str, raised_here: bool) -> LinkError {
    let alert = code.checked_sub(CRYPTO_ERROR).filter(|&alert| alert < 256);
    if let Some(known) = alert.and_then(|alert| LinkError::from_alert(alert, raised_here)) {
        return known;
    }
    if code == CONNECTION_REFUSED {
        return LinkError::Refused;
    }
    if code == APPLICATION_ERROR && !raised_here {
        return LinkError::WentAway;
    }
    LinkError::Broken(match alert {
        Some(alert) => format!("TLS alert {alert}"),
        None if reason.is_empty() => format!("QUIC error {code:#x}"),
        None => format!("QUIC error {code:#x}: {reason}"),
    })
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(error) => {
                from_code(error.code.into(), &error.reason, true)
            }
            ConnectionError::ConnectionClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason);
                from_code(close.error_code.into(), &reason, false)
            }
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: CloseCode::from_wire(close.error_code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::Reset | ConnectionError::TimedOut => Self::Lost,
            ConnectionError::LocallyClosed => Self::Local,
            ConnectionError::VersionMismatch => Self::Protocol,
            ConnectionError::CidsExhausted => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_goes_away_early_is_no_error_of_the_protocol() {
        assert_eq!(from_code(0xc, "", false), LinkError::WentAway);
        let broken = from_code(0xa, "", true);
        assert_eq!(broken, LinkError::Broken("QUIC error 0xa".to_owned()));
        assert!(!LinkError::WentAway.is_fatal());
    }
}
