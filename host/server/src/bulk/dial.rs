//! How a host calls another: address, handshake, greeting.
//!
//! Holds: a connection that comes out of here is with a host of the same cluster, and with the one
//! that was meant. The other side's refusal is kept in its own words.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use maitred_protocol::{ClusterId, PeerGreeting, PeerHello, PeerRefusal};
use maitred_transport::{
    Alpn, CloseCode, Connection, Endpoint, FrameReader, LinkError, ReadError, close,
};

use tokio::task::JoinSet;

use super::wire;

/// Longest that a call may take, all of it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are called.
const ADDRESSES_MAX: usize = 8;

/// Why there is no connection to a host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name leads nowhere.
    #[error("the address {address} cannot be found: {problem}")]
    Unresolved {
        /// As it was given.
        address: String,
        /// What the system said.
        problem: String,
    },
    /// No connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What came is no greeting.
    #[error("its greeting cannot be read: {0}")]
    Read(#[from] ReadError),
    /// It ended the stream instead of greeting.
    #[error("it did not answer the greeting")]
    NoGreeting,
    /// One of the two does not want to talk to the other.
    #[error(transparent)]
    Refused(#[from] PeerRefusal),
    /// It took too long.
    #[error("{address} did not greet within {} s", DIAL_TIMEOUT.as_secs())]
    Silent {
        /// As it was given.
        address: String,
    },
}

/// What a host said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcomed {
    pub(crate) cluster: ClusterId,
    pub(crate) host: u64,
    pub(crate) build: String,
    pub(crate) level_max: u16,
}

/// Calls `HOST:PORT` and says hello. Takes five seconds at most.
///
/// # Errors
/// [`DialError`]. When the greeting shows another cluster or another host than the one meant, the
/// connection is closed and that is a refusal too.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    address: &str,
    hello: &PeerHello,
) -> Result<(Connection, Welcomed), DialError> {
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, async {
        let connection = connect(endpoint, address).await?;
        match greet(&connection, hello).await {
            Ok(welcomed) => Ok((connection, welcomed)),
            Err(error) => {
                close(&connection, CloseCode::Done, "");
                Err(error)
            }
        }
    });
    dialled.await.unwrap_or_else(|_| {
        let address = address.to_owned();
        Err(DialError::Silent { address })
    })
}

/// Tries every address of the name.
async fn connect(endpoint: &Endpoint, address: &str) -> Result<Connection, DialError> {
    let unresolved = |problem: String| DialError::Unresolved {
        address: address.to_owned(),
        problem,
    };
    let found = tokio::net::lookup_host(address).await;
    let found = found.map_err(|error: io::Error| unresolved(error.to_string()))?;
    let connected = first_of(endpoint, found.take(ADDRESSES_MAX)).await;
    connected.map_err(|error| match error {
        Some(error) => error.into(),
        None => unresolved("the name has no address".to_owned()),
    })
}

/// Calls all at once: one that does not answer must not take the time of the others.
async fn first_of(
    endpoint: &Endpoint,
    addresses: impl Iterator<Item = SocketAddr>,
) -> Result<Connection, Option<LinkError>> {
    let mut calling = JoinSet::new();
    for address in addresses {
        let endpoint = endpoint.clone();
        calling.spawn(async move { endpoint.connect(address, Alpn::Peer, DIAL_TIMEOUT).await });
    }
    let mut last = None;
    while let Some(called) = calling.join_next().await {
        match called {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = Some(error),
            // It was broken off, with the runtime.
            Err(_) => {}
        }
    }
    Err(last)
}

async fn greet(connection: &Connection, hello: &PeerHello) -> Result<Welcomed, DialError> {
    let lost = |error| LinkError::from(error);
    let (mut send, receive) = connection.open_bi().await.map_err(lost)?;
    // A stream that cannot be written says why when it is read.
    let _ = wire::send(&mut send, 0, hello).await;
    let _ = send.finish();
    let mut reader = FrameReader::new(receive);
    let greeting = reader.message::<PeerGreeting>().await?;
    let (_, greeting) = greeting.ok_or(DialError::NoGreeting)?;
    let welcomed = match greeting {
        PeerGreeting::Welcome {
            cluster,
            host,
            build,
            level_max,
        } => Welcomed {
            cluster,
            host,
            build,
            level_max,
        },
        PeerGreeting::Refused(why) => return Err(why.into()),
    };
    if hello.cluster.is_some_and(|ours| ours != welcomed.cluster) {
        return Err(PeerRefusal::OtherCluster.into());
    }
    if hello.to != 0 && hello.to != welcomed.host {
        return Err(PeerRefusal::OtherHost(welcomed.host).into());
    }
    Ok(welcomed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_transport::{Authority, Handler, IssueKind, Limits};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_take_the_time_of_the_next() {
        let authority = Authority::generate("test group").unwrap();
        let identity = authority.identity("host", IssueKind::Host, 1).unwrap();
        let here = (Ipv4Addr::LOCALHOST, 0).into();
        let limits = Limits::default();
        let endpoint = Endpoint::server(here, &identity, &[Alpn::Peer], limits).unwrap();
        let address = endpoint.local_addr().unwrap();
        let serving = endpoint.clone();
        let stay = |connection: Connection| async move { drop(connection.closed().await) };
        let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Peer, Arc::new(stay))];
        tokio::spawn(async move {
            let forever = std::future::pending();
            maitred_transport::serve(&serving, handlers, forever, Duration::ZERO).await;
        });
        let silent = std::net::UdpSocket::bind(here).unwrap();
        let addresses = [silent.local_addr().unwrap(), address].into_iter();
        let called = tokio::time::timeout(DIAL_TIMEOUT, first_of(&endpoint, addresses)).await;
        let connection = called.expect("the second was never called").unwrap();
        assert_eq!(connection.remote_address(), address);
    }
}
