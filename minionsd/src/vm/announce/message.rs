//! Message of a connection, read within bounds.

use minions_proto::announcement::{Announcement, InvalidAnnouncement};
use minions_proto::frame::PREFIX_LEN;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// Time limit of the whole message.
const DEADLINE: Duration = Duration::from_secs(2);

/// Reason why a connection brought no announcement.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error("the message did not arrive within 2 s")]
    TimedOut,
    #[error("the connection ended before the end of the message")]
    Lost(#[from] io::Error),
    #[error("not an announcement")]
    Invalid(#[from] InvalidAnnouncement),
}

/// Reads one announcement. At most 1028 bytes are read; the others are not.
///
/// Dropping the future loses the bytes read so far.
pub(super) async fn read(stream: impl AsyncRead + Unpin) -> Result<Announcement, MessageError> {
    timeout(DEADLINE, receive(stream)).await.map_err(|_| MessageError::TimedOut)?
}

async fn receive(mut stream: impl AsyncRead + Unpin) -> Result<Announcement, MessageError> {
    let mut prefix = [0; PREFIX_LEN];
    stream.read_exact(&mut prefix).await?;
    let mut payload = vec![0; Announcement::payload_len(prefix)?];
    stream.read_exact(&mut payload).await?;
    Ok(Announcement::decode(&payload)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::AgentPort;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::Instant;

    #[tokio::test]
    async fn one_message_is_read_and_later_bytes_are_not() {
        let sent = Announcement::new(AgentPort::DEFAULT, "b".into(), "i".into());
        let mut bytes = sent.encode().unwrap();
        bytes.extend([0xff; 64]);
        assert_eq!(read(&bytes[..]).await.unwrap(), sent);
    }

    #[tokio::test]
    async fn junk_an_excessive_length_and_an_early_end_are_errors() {
        let invalid = |bytes: &'static [u8]| async move { read(bytes).await.unwrap_err() };
        assert!(matches!(invalid(b"GET / HTTP/1.1\r\n").await, MessageError::Invalid(_)));
        assert!(matches!(invalid(b"\x00\x00\x04\x01{").await, MessageError::Invalid(_)));
        assert!(matches!(invalid(b"\x00\x00\x00\x00").await, MessageError::Invalid(_)));
        assert!(matches!(invalid(b"\x00\x00\x00\x02{}").await, MessageError::Invalid(_)));
        assert!(matches!(invalid(b"\x00\x00\x00\x02{").await, MessageError::Lost(_)));
        assert!(matches!(invalid(b"").await, MessageError::Lost(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_sends_a_byte_each_second_ends_at_the_deadline() {
        let (ours, mut theirs) = duplex(64);
        let began = Instant::now();
        let slow = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = theirs.write_all(b"\0").await;
            }
        };
        tokio::select! {
            read = read(ours) => assert!(matches!(read, Err(MessageError::TimedOut))),
            () = slow => {}
        }
        assert_eq!(began.elapsed(), DEADLINE);
    }
}
