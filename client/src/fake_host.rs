//! A host for tests, on the real transport: the test itself decides every answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{
    ClientId, Digest, Hello, KeepAlive, KeepAliveAck, Kind, NodeAnswer, NodeCommand, Request,
    Response, Upload, UploadStage, Welcome, codec,
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

    pub(crate) fn cut(&self) {
        close(&self.connection, CloseCode::ShuttingDown, "cut by the test");
    }
}

pub(crate) struct FakeHost {
    pub(crate) address: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) requests: mpsc::UnboundedReceiver<(Peer, u64, Request)>,
    pub(crate) answers: mpsc::UnboundedReceiver<(u64, NodeAnswer)>,
    pub(crate) keep_alives: mpsc::UnboundedReceiver<(Peer, KeepAlive)>,
    _task: Aborts,
}

struct Aborts(tokio::task::JoinHandle<()>);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
struct Taps {
    requests: mpsc::UnboundedSender<(Peer, u64, Request)>,
    answers: mpsc::UnboundedSender<(u64, NodeAnswer)>,
    keep_alives: mpsc::UnboundedSender<(Peer, KeepAlive)>,
}

impl FakeHost {
    pub(crate) fn start() -> Self {
        let authority = Authority::generate("test").unwrap();
        let host = authority.identity("host", IssueKind::Host, 1).unwrap();
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::server(any, &host, &[Alpn::Client], Limits::default()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (requests, requests_in) = mpsc::unbounded_channel();
        let (answers, answers_in) = mpsc::unbounded_channel();
        let (keep_alives, keep_alives_in) = mpsc::unbounded_channel();
        let taps = Taps {
            requests,
            answers,
            keep_alives,
        };
        let handler: Arc<dyn Handler> =
            Arc::new(move |connection: Connection| greet(connection, taps.clone()));
        let task = tokio::spawn(async move {
            let handlers = vec![(Alpn::Client, handler)];
            serve(&endpoint, handlers, std::future::pending(), Duration::ZERO).await;
        });
        Self {
            address,
            identity: authority.identity("node", IssueKind::Client, 1).unwrap(),
            requests: requests_in,
            answers: answers_in,
            keep_alives: keep_alives_in,
            _task: Aborts(task),
        }
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
                // A probe of a quiet connection; that it arrived is answer enough.
                Request::Status if id == 0 => {}
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
        host: 1,
        in_flight_max: 4_096,
    };
    writer.try_send(id, &welcome).unwrap();
    let peer = Peer { connection, writer };
    tokio::join!(
        read(reader, peer.clone(), taps.clone()),
        datagrams(peer.clone(), taps),
        uploads(peer.connection.clone())
    );
}

async fn read(mut reader: FrameReader, peer: Peer, taps: Taps) {
    let each = |frame: &maitred_protocol::Frame<'_>| {
        let id = frame.header.request_id;
        if frame.header.kind == Kind::Answer {
            let _ = taps.answers.send((id, codec::decode(frame)?));
        } else {
            let _ = taps
                .requests
                .send((peer.clone(), id, codec::decode(frame)?));
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

/// Takes uploads as a host does, and answers with what arrived: not found, naming the digest.
async fn uploads(connection: Connection) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        let writer = FrameWriter::spawn(send, 1 << 20);
        let mut reader = FrameReader::new(receive);
        let (id, upload) = reader.message::<Upload>().await.unwrap().unwrap();
        let (mut bytes, mut part) = (Vec::new(), vec![0; 10_000]);
        while let Some(count) = reader.raw(&mut part).await.unwrap() {
            bytes.extend_from_slice(&part[..count]);
            writer
                .send(id, &UploadStage::Received(bytes.len() as u64))
                .await
                .unwrap();
        }
        assert_eq!(bytes.len() as u64, upload.bytes);
        assert_eq!(Digest::of(&bytes), upload.digest);
        writer.send(id, &UploadStage::Compiling).await.unwrap();
        let rejection = maitred_protocol::Rejection::Module {
            stage: "compiling".to_owned(),
            reason: format!("{} of {:?}", upload.digest.short(), upload.client),
        };
        let answer = Response::Rejected(rejection);
        writer.send(id, &answer).await.unwrap();
        writer.finish().await;
    }
}
