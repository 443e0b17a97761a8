//! The handshake over a stream, from both of its ends.

use super::{LineError, MAX_LINE_LEN, connect_line, parse_connect, parse_ok};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Why there is no handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side closed without a line: how a VMM says that nobody listens on that port.
    #[error("closed without an answer: nobody listens on this port in the guest")]
    Refused,
    /// The other side closed in the middle of its line.
    #[error("closed in the middle of the handshake")]
    Truncated,
    /// The other side doesn't speak hybrid vsock.
    #[error("malformed handshake line")]
    Line(#[from] LineError),
    /// No complete line in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The kernel took only a part of the CONNECT line, which must go out whole.
    #[error("CONNECT was split by the kernel")]
    SplitWrite,
    /// The stream broke.
    #[error("handshake failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for HandshakeError {
    /// A peer that closes before it has read our line makes the kernel report a broken pipe: the
    /// same refusal, seen from the other side of a race.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Refused,
            _ => Self::Io(error),
        }
    }
}

/// Asks for `port` and waits for `OK`, all within `deadline`.
///
/// On success exactly the line has been read: the next byte is the first frame's.
///
/// Not cancel safe, and more: dropping it halfway can crash some VMMs. Run it in its own task.
///
/// # Errors
///
/// [`HandshakeError`]; the stream is of no use afterwards.
pub async fn initiate<S>(
    stream: &mut S,
    port: u32,
    deadline: Duration,
) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        let line = connect_line(port);
        if stream.write(line.as_bytes()).await? != line.len() {
            return Err(HandshakeError::SplitWrite);
        }
        let mut answer = Line::default();
        Ok(parse_ok(answer.read(stream).await?)?)
    };
    timeout(deadline, exchange).await.unwrap_or(Err(HandshakeError::TimedOut(deadline)))
}

/// The VMM's side: reads the host's line and gives the port it asks for. Answer with [`grant`], or
/// refuse by closing.
///
/// Not cancel safe: bytes of the line that were read are gone.
///
/// # Errors
///
/// [`HandshakeError`]; close the stream.
pub async fn accept<S>(stream: &mut S, deadline: Duration) -> Result<u32, HandshakeError>
where
    S: AsyncRead + Unpin,
{
    let mut request = Line::default();
    let read = async { Ok(parse_connect(request.read(stream).await?)?) };
    timeout(deadline, read).await.unwrap_or(Err(HandshakeError::TimedOut(deadline)))
}

/// The VMM's side: says that the port is open. `number` means nothing to anybody.
///
/// # Errors
///
/// The stream's.
pub async fn grant<S>(stream: &mut S, number: u32) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(format!("OK {number}\n").as_bytes()).await
}

/// One line, read without taking a byte too much.
#[derive(Default)]
struct Line {
    bytes: [u8; MAX_LINE_LEN],
}

impl Line {
    /// The line without its `\n`.
    async fn read<S>(&mut self, stream: &mut S) -> Result<&[u8], HandshakeError>
    where
        S: AsyncRead + Unpin,
    {
        for len in 0..MAX_LINE_LEN {
            let mut byte = [0];
            match stream.read(&mut byte).await? {
                0 if len == 0 => return Err(HandshakeError::Refused),
                0 => return Err(HandshakeError::Truncated),
                _ if byte == *b"\n" => return Ok(&self.bytes[..len]),
                _ => self.bytes[len] = byte[0],
            }
        }
        Err(LineError::TooLong.into())
    }
}
