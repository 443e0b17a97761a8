//! How a guest answers.

use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::sleep;

/// Between a reply and the same once more.
const LATE: Duration = Duration::from_millis(20);

/// One way to answer, whatever is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As an agent that is well.
    Well,
    /// Likewise, after a while.
    Slow(Duration),
    /// Not at all. A connection that was asked something stays silent for ever.
    Mute,
    /// Does what it is asked, and then nothing more.
    Hangs,
    /// Does what it is asked, and closes instead of answering.
    LosesReplies,
    /// Does what it is asked, and closes in the middle of the reply.
    Truncates,
    /// Does what it is asked, and replies something that is no JSON.
    Garbles,
    /// Does what it is asked, and announces a frame that is too long.
    Oversizes,
    /// Gives every reply twice, in one write: the second is nobody's.
    Repeats,
    /// Likewise, the second by itself when the first one has been taken.
    RepeatsLate,
    /// A byte at a time.
    Dribbles(Duration),
}

impl Manner {
    /// Gives a reply. Whether the connection goes on.
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

    /// Whether nothing can follow what is said, by the protocol.
    pub(super) fn is_breach(self) -> bool {
        matches!(self, Self::Garbles | Self::Oversizes | Self::RepeatsLate)
    }
}
