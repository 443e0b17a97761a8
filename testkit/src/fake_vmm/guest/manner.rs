//! Manners of answering of a guest.

use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::sleep;

/// Pause between a reply and its repetition.
const LATE: Duration = Duration::from_millis(20);

/// Manner of answering every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Correct and prompt, as a healthy agent.
    Well,
    /// Correct, after this time.
    Slow(Duration),
    /// Sends no answers. A connection that carried a request stays silent forever.
    Mute,
    /// Carries the request out and sends no reply.
    Hangs,
    /// Carries the request out and closes instead of replying.
    LosesReplies,
    /// Carries the request out and closes in the middle of the reply.
    Truncates,
    /// Carries the request out and replies with bytes that are not JSON.
    Garbles,
    /// Carries the request out and announces a frame that is too long.
    Oversizes,
    /// Sends every reply twice in one write; no request belongs to the second one.
    Repeats,
    /// Sends every reply twice, the second time after a pause.
    RepeatsLate,
    /// Sends every reply one byte at a time, with this pause before each.
    Dribbles(Duration),
}

impl Manner {
    /// Sends a reply and reports whether the connection continues.
    pub(super) async fn say(self, stream: &mut UnixStream, reply: &[u8]) -> std::io::Result<bool> {
        match self {
            Self::Well | Self::Slow(_) => stream.write_all(reply).await?,
            // Their silence is the guest's to keep.
            Self::Mute | Self::Hangs => {}
            Self::LosesReplies => return Ok(false),
            Self::Truncates => {
                stream.write_all(&reply[..reply.len() / 2]).await?;
                return Ok(false);
            }
            Self::Garbles => stream.write_all(b"\0\0\0\x04junk").await?,
            Self::Oversizes => stream.write_all(&[0xff; 8]).await?,
            Self::Repeats => stream.write_all(&reply.repeat(2)).await?,
            Self::RepeatsLate => {
                stream.write_all(reply).await?;
                sleep(LATE).await;
                stream.write_all(reply).await?;
            }
            Self::Dribbles(pause) => {
                for byte in reply.chunks(1) {
                    sleep(pause).await;
                    stream.write_all(byte).await?;
                }
            }
        }
        Ok(true)
    }

    /// Reports whether the protocol forbids any further bytes after this reply.
    pub(super) fn is_breach(self) -> bool {
        matches!(self, Self::Garbles | Self::Oversizes | Self::RepeatsLate)
    }
}
