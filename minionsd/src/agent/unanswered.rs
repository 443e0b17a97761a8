//! Connections of abandoned calls. A paused guest will answer on them later, and closing one before that can
//! keep some VMMs from delivering the data of the others.

use super::cancelled::client;
use super::error::{CallError, TransportError};
use super::pool::Lane;
use minions_proto::message::ReportStatus;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

/// Deadline of the calls that are abandoned, and longest wait for the end of a closed connection.
const MOMENT: Duration = Duration::from_millis(50);

/// Parked connections that [`client`] keeps at most.
const LIMIT: usize = 4;

/// Accepts a connection, answers CONNECT, and reads the first bytes of the request.
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
async fn an_unanswered_connection_is_closed_only_when_the_agent_answers_a_probe() {
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
        assert_eq!(is_closed(stream).await, n < 2, "only the newest {LIMIT} stay open: {n}");
    }
    client.pool().close_parked();
    for stream in &mut streams {
        assert!(is_closed(stream).await);
    }
}
