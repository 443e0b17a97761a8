//! Both sides of the handshake over a stream.

use super::line::{LineError, MAX_LINE_LEN, connect_line, parse_connect, parse_ok};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Failure of a handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer closed without a line: a VMM does so if the guest does not listen on the port.
    #[error("closed without an answer: no process in the guest listens on this port")]
    Refused,
    /// The peer closed in the middle of its line.
    #[error("closed in the middle of the handshake")]
    Truncated,
    /// The peer does not speak hybrid vsock.
    #[error("malformed handshake line")]
    Line(#[from] LineError),
    /// The deadline passed before a complete line arrived.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The kernel accepted only a part of the CONNECT line, which must be sent in one write.
    #[error("CONNECT was split by the kernel")]
    SplitWrite,
    /// The stream broke.
    #[error("handshake failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for HandshakeError {
    /// Converts the error. A peer that closes before it has read the CONNECT line makes the kernel
    /// report a broken pipe or a reset: this is also a refusal.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Refused,
            _ => Self::Io(error),
        }
    }
}

/// Requests `port` and waits for `OK`, all within `deadline`.
///
/// On success exactly the line has been read: the next byte belongs to the first frame.
///
/// Not cancel safe: dropping it halfway can also crash some VMMs. Run it in a task of its own.
///
/// # Errors
///
/// [`HandshakeError`]; the stream is not usable afterwards.
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
        let mut answer = LineBuffer::default();
        Ok(parse_ok(answer.read(stream).await?)?)
    };
    timeout(deadline, exchange).await.unwrap_or(Err(HandshakeError::TimedOut(deadline)))
}

/// Reads the host's line, as a VMM does, and returns the requested port. Answer with [`grant`], or
/// refuse by closing.
///
/// Not cancel safe: bytes of the line that were read are lost.
///
/// # Errors
///
/// [`HandshakeError`]; close the stream.
pub async fn accept<S>(stream: &mut S, deadline: Duration) -> Result<u32, HandshakeError>
where
    S: AsyncRead + Unpin,
{
    let mut request = LineBuffer::default();
    let read = async { Ok(parse_connect(request.read(stream).await?)?) };
    timeout(deadline, read).await.unwrap_or(Err(HandshakeError::TimedOut(deadline)))
}

/// Sends the `OK` line, as a VMM does. `number` has no meaning.
///
/// # Errors
///
/// The errors of the stream.
pub async fn grant<S>(stream: &mut S, number: u32) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(format!("OK {number}\n").as_bytes()).await
}

/// Line buffer that reads no byte beyond the end of the line.
#[derive(Default)]
struct LineBuffer {
    bytes: [u8; MAX_LINE_LEN],
}

impl LineBuffer {
    /// Reads and returns one line, without its `\n`.
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
