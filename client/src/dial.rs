//! Calling a host and exchanging greetings.

use std::time::Duration;

use maitred_protocol::{Hello, Welcome};
use maitred_transport::{
    Alpn, Connection, Endpoint, FrameReader, FrameWriter, LinkError, ReadError, SendError,
};
use tokio::time::timeout;

use crate::conn::Conn;
use crate::error::{Error, Fatal};

/// Bytes of requests that may wait to be sent on one connection.
const SEND_BYTES_MAX: usize = 1 << 20;

/// Calls `endpoint` (`host:port`, every address it resolves to) and exchanges greetings.
pub(crate) async fn dial(
    port: &Endpoint,
    endpoint: &str,
    build: &str,
    within: Duration,
) -> Result<(Conn, FrameReader), Error> {
    let unresolved = |problem: String| {
        let endpoint = endpoint.to_owned();
        Error::link(LinkError::Unresolved { endpoint, problem })
    };
    let resolved = tokio::net::lookup_host(endpoint).await;
    let resolved = resolved.map_err(|error| unresolved(error.to_string()))?;
    let mut failed = unresolved("it has none".to_owned());
    for address in resolved {
        let greeted = async {
            let connection = port.connect(address, Alpn::Client, within).await?;
            timeout(within, greet(connection, build))
                .await
                .unwrap_or(Err(ReadError::Link(LinkError::Lost)))
        };
        match greeted.await {
            Ok(done) => return Ok(done),
            Err(error) => failed = greeting_error(endpoint, error),
        }
    }
    Err(failed)
}

fn greeting_error(endpoint: &str, error: ReadError) -> Error {
    match error {
        ReadError::Link(source) if source.is_fatal() => Error::Fatal(Fatal::Link {
            endpoint: endpoint.to_owned(),
            source,
        }),
        ReadError::Link(source) => Error::link(source),
        ReadError::Frame(error) => Error::Fatal(Fatal::Frame(error)),
        ReadError::Truncated(_) | ReadError::Abandoned => Error::link(LinkError::Lost),
    }
}

async fn greet(connection: Connection, build: &str) -> Result<(Conn, FrameReader), ReadError> {
    let (send, receive) = connection.open_bi().await.map_err(LinkError::from)?;
    let writer = FrameWriter::spawn(send, SEND_BYTES_MAX);
    let mut reader = FrameReader::new(receive);
    let hello = Hello {
        build: build.to_owned(),
    };
    match writer.try_send(0, &hello) {
        Ok(()) | Err(SendError::Full) => {}
        Err(SendError::Frame(error)) => return Err(ReadError::Frame(error)),
        Err(SendError::Closed(error)) => return Err(ReadError::Link(error)),
    }
    let welcome = reader.message::<Welcome>().await?;
    let (_, welcome) = welcome.ok_or(ReadError::Abandoned)?;
    Ok((Conn::new(connection, welcome, writer), reader))
}
