//! How bytes travel: QUIC endpoints, TLS within one group, frames on streams and datagrams.
//!
//! This crate decides sockets, certificates, transport settings, admission of handshakes, and how
//! frames are batched. It knows the shape of a frame and nothing of what messages mean. It must
//! never name Raft, wasmtime or the registry; other crates reach quinn only through it.

pub mod accept;
pub mod admit;
#[cfg(feature = "host")]
pub mod ca;
pub mod endpoint;
pub mod link;
pub mod read;
pub mod tls;
pub mod write;

#[cfg(test)]
#[cfg(feature = "host")]
mod loopback_tests;
#[cfg(test)]
#[cfg(feature = "host")]
mod peer_tests;

pub use accept::{BoxFuture, Handler, serve};
pub use admit::Limits;
#[cfg(feature = "host")]
pub use ca::{Authority, CaError, IssueKind, Issued};
pub use endpoint::{BindError, Endpoint, widen};
pub use link::{CloseCode, LinkError, close};
pub use quinn::{Connection, RecvStream, SendStream};
pub use read::{FrameReader, ReadError, read_datagram};
pub use tls::{Alpn, Identity, SERVER_NAME, TlsError};
pub use write::{FrameWriter, SendError, send_datagram};
