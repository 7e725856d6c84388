//! A host that answers as it is told, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use maitred_protocol::{Digest, PeerRequest, PeerResponse};
use maitred_transport::{CloseCode, Connection, Endpoint, FrameReader, close};

use super::{Group, until, welcome};
use crate::bulk::wire;

/// What a fake does with a call.
pub(super) struct Reply {
    response: PeerResponse,
    bytes: Vec<u8>,
    /// Closes the connection once this is true, instead of ending the answer.
    cut: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Reply {
    pub(super) fn say(response: PeerResponse) -> Self {
        let bytes = Vec::new();
        Self {
            response,
            bytes,
            cut: None,
        }
    }

    /// Announces a file from an offset to its end, and sends `sent`.
    pub(super) fn file(total: u64, digest: Digest, offset: u64, sent: &[u8]) -> Self {
        let response = PeerResponse::Bytes {
            bytes: total - offset,
            total,
            digest,
        };
        let bytes = sent.to_vec();
        Self {
            response,
            bytes,
            cut: None,
        }
    }

    pub(super) fn cut_when(mut self, cut: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.cut = Some(Box::new(cut));
        self
    }
}

type Asked = Arc<Mutex<Vec<PeerRequest>>>;
type Script = Arc<dyn Fn(usize, &PeerRequest) -> Reply + Send + Sync>;

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    asked: Asked,
    _endpoint: Endpoint,
}

impl Fake {
    /// `script` is given how many calls there were before, and the call.
    pub(super) fn new(
        group: &Group,
        number: u64,
        script: impl Fn(usize, &PeerRequest) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let asked = Asked::default();
        let (heard, script): (Asked, Script) = (Arc::clone(&asked), Arc::new(script));
        let (endpoint, address) = group.listen(move |connection: Connection| {
            let (heard, script) = (Arc::clone(&heard), Arc::clone(&script));
            async move {
                let _ = welcome(&connection, number).await;
                while answer(&connection, &heard, &script).await.is_some() {}
            }
        });
        Self {
            address,
            asked,
            _endpoint: endpoint,
        }
    }

    pub(super) fn asked(&self) -> Vec<PeerRequest> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(connection: &Connection, heard: &Asked, script: &Script) -> Option<()> {
    let (mut stream, receive) = connection.accept_bi().await.ok()?;
    let mut reader = FrameReader::new(receive);
    let (_, request) = reader.message::<PeerRequest>().await.ok()??;
    let before = {
        let mut heard = heard.lock().unwrap();
        heard.push(request.clone());
        heard.len() - 1
    };
    let reply = script(before, &request);
    wire::send(&mut stream, 0, &reply.response).await?;
    wire::send_raw(&mut stream, &reply.bytes).await?;
    if let Some(cut) = reply.cut {
        until(cut).await;
        close(connection, CloseCode::Done, "cut by the test");
        return None;
    }
    stream.finish().ok()
}
