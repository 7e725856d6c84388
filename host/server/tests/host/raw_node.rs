//! A node by hand, over a bare connection: it says and leaves out what a client would not.

use maitred_protocol::{
    ClientId, Incarnation, KeepAlive, KeepAliveAck, Kind, Load, NodeAnswer, NodeCommand, NodeEpoch,
    ProcessKey, RegisterNode, Request, Response, SetProcess, codec,
};
use maitred_server::Running;
use maitred_transport::{
    Connection, Endpoint, FrameReader, SendStream, read_datagram, send_datagram,
};

use crate::harness::{Group, within};
use crate::wire::{frame, greet};

/// What a host says to a node.
#[derive(Debug)]
pub(crate) enum Said {
    Answer(u64, Response),
    Command(u64, NodeCommand),
    Ack(KeepAliveAck),
}

pub(crate) struct RawNode {
    _endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    reader: FrameReader,
    session: ClientId,
    asked: u64,
    /// What came while something else was waited for.
    heard: Vec<Said>,
}

pub(crate) fn describe(name: &str, ttl_ms: u32, instance: u64) -> RegisterNode {
    RegisterNode {
        name: name.parse().unwrap(),
        types: Vec::new(),
        address: "10.0.0.1:1".to_owned(),
        labels: Vec::new(),
        capacity: 10,
        share: Vec::new(),
        ttl_ms,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance,
        last_epoch: None,
    }
}

pub(crate) fn keep_alive(epoch: NodeEpoch, sequence: u64, load: Option<Load>) -> KeepAlive {
    KeepAlive {
        epoch,
        sequence,
        load,
        stop_ms: 0,
    }
}

impl RawNode {
    pub(crate) async fn connect(group: &Group, running: &Running) -> Self {
        let (endpoint, connection) = group.connect(running.local_addr()).await;
        let (send, reader) = greet(&connection).await;
        let mut node = Self {
            _endpoint: endpoint,
            connection,
            send,
            reader,
            session: ClientId(0),
            asked: 0,
            heard: Vec::new(),
        };
        let Response::Session(session) = node.ask(Request::OpenSession).await else {
            panic!("no session");
        };
        node.session = session;
        node
    }

    pub(crate) async fn say<T: codec::Wire>(&mut self, id: u64, message: &T) {
        self.send.write_all(&frame(id, message)).await.unwrap();
    }

    async fn hear(&mut self) -> Said {
        loop {
            let frame = within(self.reader.next()).await.unwrap().unwrap();
            let id = frame.header.request_id;
            return match frame.header.kind {
                Kind::Notice => continue,
                Kind::Command => Said::Command(id, codec::decode(&frame).unwrap()),
                Kind::KeepAliveAck => Said::Ack(codec::decode(&frame).unwrap()),
                _ => Said::Answer(id, codec::decode(&frame).unwrap()),
            };
        }
    }

    /// Sends a request and waits for its answer; what else comes is kept.
    pub(crate) async fn ask(&mut self, request: Request) -> Response {
        self.asked += 1;
        let id = self.asked;
        self.say(id, &request).await;
        loop {
            match self.hear().await {
                Said::Answer(of, response) if of == id => return response,
                other => self.heard.push(other),
            }
        }
    }

    pub(crate) async fn register(&mut self, node: RegisterNode) -> Response {
        let request = Request::RegisterNode(self.session, Box::new(node));
        self.ask(request).await
    }

    pub(crate) async fn registered(&mut self, node: RegisterNode) -> NodeEpoch {
        match self.register(node).await {
            Response::Registered { epoch, .. } => epoch,
            other => panic!("{other:?}"),
        }
    }

    /// The next command.
    pub(crate) async fn command(&mut self) -> (u64, NodeCommand) {
        let kept = |said: &Said| matches!(said, Said::Command(..));
        if let Some(at) = self.heard.iter().position(kept)
            && let Said::Command(number, command) = self.heard.remove(at)
        {
            return (number, command);
        }
        loop {
            match self.hear().await {
                Said::Command(number, command) => return (number, command),
                other => self.heard.push(other),
            }
        }
    }

    /// Waits to be told to start something, and says that it runs.
    pub(crate) async fn start(&mut self) -> (ProcessKey, Incarnation) {
        let (number, command) = self.command().await;
        let NodeCommand::Start {
            key, incarnation, ..
        } = command
        else {
            panic!("{command:?}");
        };
        let started = NodeAnswer::Started {
            pid: "by hand".to_owned(),
            share: Vec::new(),
        };
        self.say(number, &started).await;
        (key, incarnation)
    }

    /// Waits to be told to stop something: the command's number, and what.
    pub(crate) async fn told_to_stop(&mut self) -> (u64, ProcessKey, Incarnation) {
        let (number, command) = self.command().await;
        let NodeCommand::Stop {
            key, incarnation, ..
        } = command
        else {
            panic!("{command:?}");
        };
        (number, key, incarnation)
    }

    pub(crate) async fn set(
        &mut self,
        key: &ProcessKey,
        (node, epoch): (&str, NodeEpoch),
    ) -> Response {
        let set = SetProcess {
            key: key.clone(),
            node: node.parse().unwrap(),
            epoch,
            pid: "own".to_owned(),
            share: Vec::new(),
            incarnation: None,
        };
        let request = Request::SetProcess(self.session, Box::new(set));
        self.ask(request).await
    }

    /// The next acknowledgement that came as a frame.
    pub(crate) async fn ack(&mut self) -> KeepAliveAck {
        let kept = |said: &Said| matches!(said, Said::Ack(_));
        if let Some(at) = self.heard.iter().position(kept)
            && let Said::Ack(ack) = self.heard.remove(at)
        {
            return ack;
        }
        loop {
            match self.hear().await {
                Said::Ack(ack) => return ack,
                other => self.heard.push(other),
            }
        }
    }

    pub(crate) fn send_datagram(&self, keep_alive: &KeepAlive) {
        send_datagram(&self.connection, 0, keep_alive).unwrap();
    }

    /// The next acknowledgement that came as a datagram.
    pub(crate) async fn datagram_ack(&self) -> KeepAliveAck {
        let read = read_datagram::<KeepAliveAck>(&self.connection);
        within(read).await.unwrap().1
    }
}
