//! Hosts for tests, on the real transport: the test itself decides every answer, who leads and who
//! the members are. Sessions are opened, and the members told, without the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maitred_protocol::{
    ClientId, Digest, Hello, HostName, KeepAlive, KeepAliveAck, Kind, MemberRecord, MemberRole,
    Members, NodeAnswer, NodeCommand, Notice, Request, Response, SaveInputs, SaveSnapshot,
    SavedInputs, SavedSnapshot, Unavailable, Upload, UploadStage, Welcome, codec,
};
use maitred_transport::{
    Alpn, Authority, CloseCode, Connection, Endpoint, FrameReader, FrameWriter, Handler, Identity,
    IssueKind, Limits, ReadError, close, read_datagram, send_datagram, serve,
};
use tokio::sync::mpsc;

use crate::{Builder, Client};

/// A client's connection, as the host sees it.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    writer: FrameWriter,
}

impl Peer {
    pub(crate) fn reply(&self, id: u64, response: &Response) {
        self.writer.try_send(id, response).unwrap();
    }

    pub(crate) fn command(&self, id: u64, command: &NodeCommand) {
        self.writer.try_send(id, command).unwrap();
    }

    pub(crate) fn ack(&self, keep_alive: &KeepAlive, alive: bool) {
        let ack = KeepAliveAck {
            epoch: keep_alive.epoch,
            sequence: keep_alive.sequence,
            alive,
        };
        let _ = send_datagram(&self.connection, keep_alive.sequence, &ack);
    }

    /// The same on the control stream.
    pub(crate) fn ack_by_stream(&self, keep_alive: &KeepAlive) {
        let ack = KeepAliveAck {
            epoch: keep_alive.epoch,
            sequence: keep_alive.sequence,
            alive: true,
        };
        self.writer.try_send(keep_alive.sequence, &ack).unwrap();
    }

    pub(crate) fn notice(&self, notice: &Notice) {
        let _ = self.writer.try_send(0, notice);
    }

    /// Refuses a request, naming another host.
    pub(crate) fn not_leader(&self, id: u64, leader: Option<&FakeHost>) {
        let leader = leader.map(|host| host.address.to_string());
        self.reply(
            id,
            &Response::Unavailable(Unavailable::NotLeader { leader }),
        );
    }

    pub(crate) fn cut(&self) {
        close(&self.connection, CloseCode::ShuttingDown, "cut by the test");
    }
}

pub(crate) struct FakeHost {
    pub(crate) number: u64,
    pub(crate) address: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) requests: mpsc::UnboundedReceiver<(Peer, u64, Request)>,
    pub(crate) answers: mpsc::UnboundedReceiver<(u64, NodeAnswer)>,
    pub(crate) keep_alives: mpsc::UnboundedReceiver<(Peer, KeepAlive)>,
    /// Those that came on the control stream.
    pub(crate) streamed: mpsc::UnboundedReceiver<(Peer, KeepAlive)>,
    pub(crate) says: Arc<Mutex<Says>>,
    _task: Aborts,
}

/// What a host says by itself.
pub(crate) struct Says {
    leader: Notice,
    pub(crate) members: Option<Members>,
    /// Everyone who is connected, or was.
    pub(crate) peers: Vec<Peer>,
    /// What is told of a snapshot, and the bytes that then come.
    pub(crate) snapshot: (SavedSnapshot, Vec<u8>),
    /// The same, of 100 recorded decisions.
    pub(crate) inputs: (SavedInputs, Vec<u8>),
}

struct Aborts(tokio::task::JoinHandle<()>);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
struct Taps {
    number: u64,
    requests: mpsc::UnboundedSender<(Peer, u64, Request)>,
    answers: mpsc::UnboundedSender<(u64, NodeAnswer)>,
    keep_alives: mpsc::UnboundedSender<(Peer, KeepAlive)>,
    streamed: mpsc::UnboundedSender<(Peer, KeepAlive)>,
    says: Arc<Mutex<Says>>,
}

fn leader(host: Option<u64>, term: u64) -> Notice {
    Notice::Leader {
        host,
        address: None,
        term,
    }
}

/// Members of these numbers and addresses, as of this commit.
pub(crate) fn members(commit: u64, hosts: &[(u64, SocketAddr)]) -> Members {
    let record = |(host, address): &(u64, SocketAddr)| MemberRecord {
        host: *host,
        name: HostName::new(format!("host-{host}")).unwrap(),
        address: address.to_string(),
        role: MemberRole::Voter,
        replaces: None,
        arrived: true,
        progress: None,
    };
    Members {
        items: hosts.iter().map(record).collect(),
        leader: None,
        term: 0,
        commit,
        level: 1,
    }
}

impl FakeHost {
    /// Host 1, which leads in term 1 and knows of no other.
    pub(crate) fn start() -> Self {
        let mut group = Self::group(1);
        group.remove(0)
    }

    /// Hosts 1 to `count` of one group, of which host 1 leads in term 1.
    pub(crate) fn group(count: u64) -> Vec<Self> {
        let authority = Authority::generate("test").unwrap();
        let hosts: Vec<_> = (1..=count).map(|n| Self::of(&authority, n)).collect();
        let all: Vec<_> = hosts
            .iter()
            .map(|host| (host.number, host.address))
            .collect();
        for host in &hosts {
            host.says.lock().unwrap().members = Some(members(1, &all));
        }
        hosts
    }

    fn of(authority: &Authority, number: u64) -> Self {
        let host = authority.identity("host", IssueKind::Host, 1).unwrap();
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::server(any, &host, &[Alpn::Client], Limits::default()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (requests, requests_in) = mpsc::unbounded_channel();
        let (answers, answers_in) = mpsc::unbounded_channel();
        let (keep_alives, keep_alives_in) = mpsc::unbounded_channel();
        let (streamed, streamed_in) = mpsc::unbounded_channel();
        let says = Arc::new(Mutex::new(Says {
            leader: leader(Some(1), 1),
            members: None,
            peers: Vec::new(),
            snapshot: (
                SavedSnapshot::Unavailable("none yet".to_owned()),
                Vec::new(),
            ),
            inputs: (SavedInputs::Unavailable("none yet".to_owned()), Vec::new()),
        }));
        let taps = Taps {
            number,
            requests,
            answers,
            keep_alives,
            streamed,
            says: Arc::clone(&says),
        };
        let handler: Arc<dyn Handler> =
            Arc::new(move |connection: Connection| greet(connection, taps.clone()));
        let task = tokio::spawn(async move {
            let handlers = vec![(Alpn::Client, handler)];
            serve(&endpoint, handlers, std::future::pending(), Duration::ZERO).await;
        });
        Self {
            number,
            address,
            identity: authority.identity("node", IssueKind::Client, 1).unwrap(),
            requests: requests_in,
            answers: answers_in,
            keep_alives: keep_alives_in,
            streamed: streamed_in,
            says,
            _task: Aborts(task),
        }
    }

    /// Says from now on, and to everyone who is connected, that `host` leads in `term`.
    pub(crate) fn says_leader(&self, host: Option<u64>, term: u64) {
        let mut says = self.says.lock().unwrap();
        says.leader = leader(host, term);
        says.peers.iter().for_each(|peer| peer.notice(&says.leader));
    }

    /// Ends every connection, and takes no more.
    pub(crate) fn die(self) {
        let says = self.says.lock().unwrap();
        says.peers.iter().for_each(Peer::cut);
    }

    pub(crate) fn builder(&self) -> Builder {
        Client::builder()
            .endpoint(self.address.to_string())
            .identity(self.identity.clone())
    }

    /// The next request; sessions are opened on the way (the n-th as `ClientId(n·100)`).
    pub(crate) async fn request(&mut self) -> (Peer, u64, Request) {
        loop {
            let (peer, id, request) = self.requests.recv().await.unwrap();
            match request {
                Request::OpenSession => peer.reply(id, &Response::Session(ClientId(id * 100))),
                request => return (peer, id, request),
            }
        }
    }
}

async fn greet(connection: Connection, taps: Taps) {
    let (send, receive) = connection.accept_bi().await.unwrap();
    let writer = FrameWriter::spawn(send, 1 << 20);
    let mut reader = FrameReader::new(receive);
    let (id, _) = reader.message::<Hello>().await.unwrap().unwrap();
    let welcome = Welcome {
        build: "fake".to_owned(),
        group: 0,
        host: taps.number,
        in_flight_max: 4_096,
    };
    writer.try_send(id, &welcome).unwrap();
    let peer = Peer { connection, writer };
    {
        let mut says = taps.says.lock().unwrap();
        peer.notice(&says.leader);
        says.peers.push(peer.clone());
    }
    tokio::join!(
        read(reader, peer.clone(), taps.clone()),
        datagrams(peer.clone(), taps.clone()),
        streams(peer.connection.clone(), taps)
    );
}

async fn read(mut reader: FrameReader, peer: Peer, taps: Taps) {
    let each = |frame: &maitred_protocol::Frame<'_>| {
        let id = frame.header.request_id;
        match frame.header.kind {
            Kind::Answer => {
                let _ = taps.answers.send((id, codec::decode(frame)?));
                return Ok(());
            }
            Kind::KeepAlive => {
                let _ = taps.streamed.send((peer.clone(), codec::decode(frame)?));
                return Ok(());
            }
            _ => {}
        }
        match codec::decode(frame)? {
            Request::ListMembers => {
                if let Some(members) = taps.says.lock().unwrap().members.clone() {
                    peer.reply(id, &Response::Members(Box::new(members)));
                }
            }
            // A probe of a quiet connection; that it arrived is answer enough.
            Request::Status if id == 0 => {}
            request => drop(taps.requests.send((peer.clone(), id, request))),
        }
        Ok::<(), ReadError>(())
    };
    while reader.read_batch(each).await == Ok(true) {}
}

async fn datagrams(peer: Peer, taps: Taps) {
    while let Ok((_, keep_alive)) = read_datagram::<KeepAlive>(&peer.connection).await {
        let _ = taps.keep_alives.send((peer.clone(), keep_alive));
    }
}

/// Takes uploads as a host does, and answers with what arrived: not found, naming the digest. Sends
/// the files that it was given.
async fn streams(connection: Connection, taps: Taps) {
    while let Ok((mut send, receive)) = connection.accept_bi().await {
        let mut reader = FrameReader::new(receive);
        let frame = reader.next().await.unwrap().unwrap();
        let id = frame.header.request_id;
        let mut head = Vec::new();
        let file = match frame.header.kind {
            Kind::SaveSnapshot => {
                codec::decode::<SaveSnapshot>(&frame).unwrap();
                let (saved, bytes) = taps.says.lock().unwrap().snapshot.clone();
                codec::encode(id, &saved, &mut head).unwrap();
                bytes
            }
            Kind::SaveInputs => {
                let asked = codec::decode::<SaveInputs>(&frame).unwrap();
                assert_eq!(asked.last, 100);
                let (saved, bytes) = taps.says.lock().unwrap().inputs.clone();
                codec::encode(id, &saved, &mut head).unwrap();
                bytes
            }
            _ => Vec::new(),
        };
        if !head.is_empty() {
            send.write_all(&head).await.unwrap();
            send.write_all(&file).await.unwrap();
            send.finish().unwrap();
            continue;
        }
        let upload = codec::decode::<Upload>(&frame).unwrap();
        let writer = FrameWriter::spawn(send, 1 << 20);
        take(id, &upload, reader, writer).await;
    }
}

async fn take(id: u64, upload: &Upload, mut reader: FrameReader, writer: FrameWriter) {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 10_000]);
    while let Some(count) = reader.raw(&mut part).await.unwrap() {
        bytes.extend_from_slice(&part[..count]);
        let stage = UploadStage::Received(bytes.len() as u64);
        writer.send(id, &stage).await.unwrap();
    }
    assert_eq!(bytes.len() as u64, upload.bytes);
    assert_eq!(Digest::of(&bytes), upload.digest);
    writer.send(id, &UploadStage::Compiling).await.unwrap();
    let rejection = maitred_protocol::Rejection::Module {
        stage: "compiling".to_owned(),
        reason: match upload.signature {
            None => format!("{} of {:?}", upload.digest.short(), upload.client),
            Some(signature) => format!("signed by {:?}", signature.key),
        },
    };
    let answer = Response::Rejected(rejection);
    writer.send(id, &answer).await.unwrap();
    writer.finish().await;
}
