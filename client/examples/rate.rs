//! How fast client and transport are by themselves: requests a second and their latencies against a
//! host in the same process that answers at once, over real QUIC on loopback.
//!
//! `cargo run --release -p maitred-client --example rate -- [IN_FLIGHT] [SECONDS]`

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_client::Client;
use maitred_client::protocol::{
    ClientId, Hello, NodeEpoch, NodeName, ProcessKey, Request, Response, Revision, SetProcess,
    Welcome, codec,
};
use maitred_transport::{
    Alpn, Authority, Connection, Endpoint, FrameReader, FrameWriter, Handler, IssueKind, Limits,
    ReadError, SendError, serve,
};

fn answer(request: Request) -> Response {
    match request {
        Request::OpenSession => Response::Session(ClientId(1)),
        _ => Response::Done(Revision(7)),
    }
}

async fn host(connection: Connection) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (send, receive) = connection.accept_bi().await?;
    let (writer, mut reader) = (FrameWriter::spawn(send, 4 << 20), FrameReader::new(receive));
    reader.message::<Hello>().await?;
    let welcome = Welcome {
        build: "rate".to_owned(),
        group: 0,
        host: 1,
        in_flight_max: 4_096,
    };
    writer.try_send(0, &welcome)?;
    let mut out = Vec::new();
    loop {
        let batch = reader.read_batch::<ReadError>(|frame| {
            let response = answer(codec::decode(frame)?);
            Ok(codec::encode(frame.header.request_id, &response, &mut out)?)
        });
        if !batch.await? {
            return Ok(());
        }
        while writer.try_send_encoded(&out) == Err(SendError::Full) {
            writer.room().await;
        }
        out.clear();
    }
}

async fn load(client: Client, until: Instant) -> Vec<u32> {
    let Ok(key) = ProcessKey::new("player", "p-123456789") else {
        return Vec::new();
    };
    let Ok(node) = NodeName::new("eu-1") else {
        return Vec::new();
    };
    let mut micros = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        // A set, so that sessions and idempotency keys are on the path; `Done` is not its answer,
        // which the client says after having read it.
        let _ = client
            .set(SetProcess {
                key: key.clone(),
                node: node.clone(),
                epoch: NodeEpoch(1),
                pid: "pid-1".to_owned(),
                share: Vec::new(),
                incarnation: None,
            })
            .await;
        micros.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    micros
}

#[tokio::main(flavor = "multi_thread", worker_threads = 3)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let in_flight: usize = args.next().map_or(Ok(1_024), |text| text.parse())?;
    let seconds: u64 = args.next().map_or(Ok(5), |text| text.parse())?;
    let authority = Authority::generate("rate")?;
    let identity = authority.identity("host", IssueKind::Host, 1)?;
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = Endpoint::server(any, &identity, &[Alpn::Client], Limits::default())?;
    let address = endpoint.local_addr()?;
    let handler = |connection: Connection| async move {
        if let Err(error) = host(connection).await {
            // The client's farewell is one of them.
            eprintln!("the host's side ended: {error}");
        }
    };
    let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Client, Arc::new(handler))];
    tokio::spawn(async move {
        serve(&endpoint, handlers, std::future::pending(), Duration::ZERO).await;
    });
    let client = Client::builder().endpoint(address.to_string());
    let identity = authority.identity("client", IssueKind::Client, 1)?;
    let client = client.identity(identity).connect().await?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let loads: Vec<_> = (0..in_flight)
        .map(|_| tokio::spawn(load(client.clone(), until)))
        .collect();
    let mut micros = Vec::new();
    for load in loads {
        micros.extend(load.await?);
    }
    micros.sort_unstable();
    let at = |permille: usize| {
        micros
            .get(micros.len() * permille / 1_000)
            .copied()
            .unwrap_or(0)
    };
    println!(
        "{in_flight} in flight: {} requests/s, p50 {} µs, p99 {} µs",
        micros.len() as u64 / seconds,
        at(500),
        at(990)
    );
    Ok(())
}
