//! Connections on which a call was given up. A guest that is paused will answer on them, and closing one
//! meanwhile can keep some VMMs from delivering what was sent on others.

use super::cancelled::client;
use super::{CallError, Lane, TransportError};
use minions_proto::message::ReportStatus;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

/// Time for a call that is given up, and for a connection to show that it was closed.
const MOMENT: Duration = Duration::from_millis(50);

/// The connections that [`client`] keeps.
const LIMIT: usize = 4;

/// Grants a connection and reads the first bytes of the request on it.
async fn granted(listener: &UnixListener) -> UnixStream {
    let mut stream = listener.accept().await.unwrap().0;
    let mut line = [0; b"CONNECT 1024\n".len()];
    stream.read_exact(&mut line).await.unwrap();
    stream.write_all(b"OK 1\n").await.unwrap();
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.unwrap();
    stream
}

async fn is_closed(stream: &mut UnixStream) -> bool {
    timeout(MOMENT, stream.read_to_end(&mut Vec::new())).await.is_ok()
}

#[tokio::test]
async fn a_connection_without_its_reply_is_closed_when_the_agent_answers_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web-1.vsock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = client(&path);
    let mut streams = Vec::new();
    for _ in 0..LIMIT + 2 {
        let call = client.call(&ReportStatus {}, Lane::Quick, Instant::now() + MOMENT);
        let (call, stream) = tokio::join!(call, granted(&listener));
        let timed_out =
            matches!(call, Err(CallError::Transport(TransportError::TimedOut { sent: true })));
        assert!(timed_out, "{call:?}");
        streams.push(stream);
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        assert_eq!(is_closed(stream).await, n < 2, "their number is bounded: {n}");
    }
    client.pool().close_parked();
    for stream in &mut streams {
        assert!(is_closed(stream).await);
    }
}
