//! A UDP port that takes and makes QUIC connections, and every transport setting with its reason.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ClientConfig, Connection, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use crate::admit::Limits;
use crate::link::{CloseCode, LinkError};
use crate::tls::{Alpn, Identity, SERVER_NAME, TlsError};

/// Bytes asked for each of a socket's two buffers: the usual 208 KiB drops datagrams under load and
/// costs stalls of 60 to 90 ms.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Below this a warning is due.
const SOCKET_BUFFER_BYTES_MIN: usize = 4 << 20;
/// Silence after which a connection is given up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the calling side proves that it is there; the other side only listens, because
/// 10,000 keep-alive timers would cost it 4 to 9 % of a core.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The same between hosts: one that died without a word is called again soon. Its successor on the
/// same port is noticed at once, see [`Endpoint::server`].
const PEER_IDLE_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a host that calls another proves that it is there.
const PEER_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Before anything was measured. quinn's 333 ms makes the first loss on a local network slow.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// Streams are allocated in advance: 16 cost 32 KiB an idle connection, 4,096 cost 370 KiB.
const BIDI_STREAMS_MAX: u32 = 16;
const UNI_STREAMS_MAX: u32 = 4;
/// Unread bytes of one stream, and of a connection's streams together.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// Bytes sent and not yet acknowledged on a connection.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// The same for a host that calls another: it fetches snapshots and modules, and sends entries.
const PEER_STREAM_WINDOW_BYTES: u32 = 8 << 20;
const PEER_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const PEER_SEND_WINDOW_BYTES: u64 = 16 << 20;
/// What the other side of a peer's connection may have under way, where it is the called one.
const PEER_UNI_STREAMS_MAX: u32 = 16;
/// Datagrams (keep-alives) waiting to be read or sent.
const DATAGRAM_BUFFER_BYTES: usize = 64 << 10;
/// Callers whose first packet waits for a decision, and what each may send meanwhile.
const INCOMING_MAX: usize = 4_096;
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 32 << 20;

/// Why a port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses the address.
    #[error(
        "cannot open UDP {address}: {source}; choose another address, or end the program that has it"
    )]
    Socket {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The identity cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A UDP port. Cheap to clone; all clones are the same port.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(crate) inner: quinn::Endpoint,
    pub(crate) limits: Limits,
    callers: Arc<[(Alpn, ClientConfig)]>,
}

impl Endpoint {
    /// Opens a port that takes connections of `alpns` (see [`crate::serve`]) and can make some.
    /// Must be called within a tokio runtime, which then carries the port.
    ///
    /// A host that was killed and is started again on the same port with the same key tells those
    /// who still talk to its predecessor that those connections are gone (a stateless reset).
    ///
    /// # Errors
    /// [`BindError`] names the address or what is wrong with the identity.
    pub fn server(
        address: SocketAddr,
        identity: &Identity,
        alpns: &[Alpn],
        limits: Limits,
    ) -> Result<Self, BindError> {
        let mut config = ServerConfig::with_crypto(identity.server(alpns)?);
        config
            .transport_config(Arc::new(transport(None)))
            .migration(true)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
        Self::open(address, identity, Some(config), limits, lasting(identity))
    }

    /// Opens a port that only makes connections, at a free port number. It speaks IPv6 and IPv4
    /// where the machine has both. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`Endpoint::server`].
    pub fn client(identity: &Identity) -> Result<Self, BindError> {
        let limits = Limits::default();
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        match Self::open(both, identity, None, limits, EndpointConfig::default()) {
            Err(BindError::Socket { .. }) => {
                let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                Self::open(v4, identity, None, limits, EndpointConfig::default())
            }
            opened => opened,
        }
    }

    fn open(
        address: SocketAddr,
        identity: &Identity,
        server: Option<ServerConfig>,
        limits: Limits,
        lasting: EndpointConfig,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Socket { address, source };
        let mut callers = Vec::new();
        for alpn in [Alpn::Client, Alpn::Peer] {
            let mut config = ClientConfig::new(identity.client(alpn)?);
            config.transport_config(Arc::new(match alpn {
                Alpn::Client => transport(Some(KEEP_ALIVE)),
                Alpn::Peer => peer_transport(),
            }));
            callers.push((alpn, config));
        }
        let socket = socket(address).map_err(failed)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let inner = quinn::Endpoint::new(lasting, server, socket, runtime);
        Ok(Self {
            inner: inner.map_err(failed)?,
            limits,
            callers: callers.into(),
        })
    }

    /// The address that the port has; the system's choice where 0 was asked for.
    ///
    /// # Errors
    /// The system's, when the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Calls a host and waits for the handshake, at most for `timeout`.
    ///
    /// A host checks our certificate after our half of the handshake is done, so one that it does
    /// not like shows up as a [`LinkError`] of the first read instead.
    ///
    /// # Errors
    /// [`LinkError`]; [`LinkError::is_fatal`] says whether trying again can help.
    pub async fn connect(
        &self,
        address: SocketAddr,
        alpn: Alpn,
        timeout: Duration,
    ) -> Result<Connection, LinkError> {
        let impossible = |problem: String| LinkError::Address { address, problem };
        let known = self.callers.iter().find(|(known, _)| *known == alpn);
        let (_, config) = known.ok_or_else(|| impossible("no such protocol".to_owned()))?;
        let config = config.clone();
        let call = self
            .inner
            .connect_with(config, self.mapped(address), SERVER_NAME);
        let call = call.map_err(|error| impossible(error.to_string()))?;
        match tokio::time::timeout(timeout, call).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(LinkError::NoAnswer {
                address,
                millis: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// A socket that speaks both families wants IPv4 addresses in their IPv6 form.
    fn mapped(&self, address: SocketAddr) -> SocketAddr {
        let dual = self.local_addr().is_ok_and(|local| local.is_ipv6());
        match address {
            SocketAddr::V4(v4) if dual => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            _ => address,
        }
    }

    /// Connections that are open, handshakes under way included.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.inner.open_connections()
    }

    /// Closes every connection, telling the other sides why, and takes no more.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner
            .close(VarInt::from_u32(code as u32), reason.as_bytes());
    }

    /// Waits until the other sides have been told, which takes at most some round trips.
    pub async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }
}

fn transport(keep_alive: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(BIDI_STREAMS_MAX.into())
        .max_concurrent_uni_streams(UNI_STREAMS_MAX.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(keep_alive)
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .mtu_discovery_config(Some(quinn::MtuDiscoveryConfig::default()));
    config
}

/// For the calling side between hosts. The called side does not know who calls until the handshake is
/// done, so it has the settings of all; of the two idle time-outs the shorter one holds.
fn peer_transport() -> TransportConfig {
    let mut config = transport(Some(PEER_KEEP_ALIVE));
    config
        .max_concurrent_uni_streams(PEER_UNI_STREAMS_MAX.into())
        .stream_receive_window(PEER_STREAM_WINDOW_BYTES.into())
        .receive_window(PEER_CONNECTION_WINDOW_BYTES.into())
        .send_window(PEER_SEND_WINDOW_BYTES)
        .max_idle_timeout(IdleTimeout::try_from(PEER_IDLE_TIMEOUT).ok());
    config
}

/// Gives a called connection the windows of [`peer_transport`], once its caller is known to be a host
/// of the group.
pub fn widen(connection: &Connection) {
    connection.set_receive_window(PEER_CONNECTION_WINDOW_BYTES.into());
    connection.set_send_window(PEER_SEND_WINDOW_BYTES);
}

/// Settings that a later start with the same key will have too.
fn lasting(identity: &Identity) -> EndpointConfig {
    let key = ResetKey(identity.derive("maitred 1 stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(key));
    let cids = identity.derive("maitred 1 connection ids");
    let cids = cids
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cids)));
    config
}

/// Makes the tokens of stateless resets.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let hash = blake3::keyed_hash(&self.0, data);
        for (to, from) in signature_out.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let hash = blake3::keyed_hash(&self.0, data);
        // This comparison takes the same time whatever differs.
        match <[u8; 32]>::try_from(signature) {
            Ok(signature) if hash == signature => Ok(()),
            _ => Err(CryptoError),
        }
    }
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // A kernel that caps the size takes the largest it allows without an error.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    warn_of_small_buffers(&socket)?;
    Ok(socket.into())
}

fn warn_of_small_buffers(socket: &Socket) -> io::Result<()> {
    // Linux counts its bookkeeping in and says the double of what it gives.
    let given = |size: usize| {
        if cfg!(target_os = "linux") {
            size / 2
        } else {
            size
        }
    };
    let receive = given(socket.recv_buffer_size()?);
    let send = given(socket.send_buffer_size()?);
    if receive.min(send) < SOCKET_BUFFER_BYTES_MIN {
        tracing::warn!(
            receive_bytes = receive,
            send_bytes = send,
            wanted_bytes = SOCKET_BUFFER_BYTES,
            "the kernel caps the UDP socket's buffers, which costs packets under load; \
             raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    Ok(())
}
