//! Behaviours of a fake VMM and its guest.

use super::boot::Boot;
use super::guest::Guest;
use super::handshakes::HandshakeCounter;
use bytes::Bytes;
use minions_agent::Agent;
use minions_proto::frame::Decoder;
use minions_proto::handshake::grant;
use minions_proto::version::AGENT_PORT;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::net::UnixStream;
use tokio::time::sleep;

/// Pause between two pieces of a line.
const PIECE_PAUSE: Duration = Duration::from_millis(2);

/// Behaviour towards every connection.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Healthy VMM and healthy agent: the real agent's library.
    Agent(Agent),
    /// Healthy VMM with a guest that runs no programs, and answers as configured.
    Guest(Guest),
    /// Like `Guest`, with a guest that is booting.
    Boots(Boot),
    /// Like `Guest`, but sends these pieces instead of one `OK`, with a pause after each.
    GrantsInPieces(Vec<Vec<u8>>, Guest),
    /// Like `Guest`, but sends `OK` only after this time; the handshake is counted until then.
    GrantsLate(Arc<HandshakeCounter>, Duration, Guest),
    /// Like `Agent`, through a buffer of this many bytes: its contents are lost when the connection is
    /// [cut](super::FakeVmm::cut), as in a real VMM.
    Buffered(Agent, usize),
    /// Like `Agent`, but the reply to the first request to start a program is lost together with its
    /// connection.
    LosesFirstStart(Agent, Arc<AtomicBool>),
    /// Closes after CONNECT: no process listens in the guest.
    Refuses,
    /// Accepts CONNECT and never answers: the guest or the VMM hangs.
    NeverGrants,
    /// Answers CONNECT with these bytes.
    Grants(Vec<u8>),
    /// Sends `OK`, and then no answer to any request: a guest that was reset.
    Silent,
    /// Sends `OK`, and these bytes in answer to every request.
    Replies(Vec<u8>),
    /// Sends `OK`, and these bytes in answer to every request on the first connection, but no answer on any
    /// other: a supervisor that only keeps its connection sees a healthy VM.
    FirstOnly(Vec<u8>, Arc<AtomicBool>),
    /// Sends `OK` and these bytes in answer to the first request, and closes.
    AnswersOnce(Vec<u8>),
    /// Sends `OK`, and the second bytes as soon as the first are part of what was received; then closes.
    AnswersTo(Vec<u8>, Vec<u8>),
    /// Sends `OK`, and the first bytes in answer to every request; if the request opened a stream, then the
    /// second bytes repeatedly.
    Streams(Vec<u8>, Vec<u8>),
    /// Like `Replies`, but sends one byte at a time with a pause before each.
    Drips(Vec<u8>, Duration),
    /// Sends `OK`, and closes after the first whole request.
    HangsUp,
    /// Sends `OK` and these bytes before any request.
    SpeaksFirst(Vec<u8>),
    /// Sends `OK`, and these bytes repeatedly until the client is gone.
    Floods(Vec<u8>),
}

impl Behaviour {
    /// Serves a connection whose CONNECT line asked for the open `port`, until it ends.
    pub(super) async fn serve(self, mut stream: UnixStream, port: u32) {
        // A client that leaves ends the connection; the error is of no further use.
        let _ = match self {
            Self::Agent(agent) => match grant(&mut stream, 1_073_741_824).await {
                Ok(()) => {
                    agent.serve(stream).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Self::Guest(guest) => match granted_by(&guest, &mut stream).await {
                Ok(()) => guest.serve(&mut stream).await,
                Err(error) => Err(error),
            },
            Self::Boots(boot) => match boot.passes().await {
                true => match granted_by(&boot.guest, &mut stream).await {
                    Ok(()) => boot.guest.serve(&mut stream).await,
                    Err(error) => Err(error),
                },
                false => Ok(()),
            },
            Self::GrantsInPieces(pieces, guest) => match in_pieces(&mut stream, &pieces).await {
                Ok(()) => guest.serve(&mut stream).await,
                Err(error) => Err(error),
            },
            Self::GrantsLate(handshakes, pause, guest) => {
                let under_way = handshakes.begin();
                sleep(pause).await;
                drop(under_way);
                match grant(&mut stream, 1_073_741_824).await {
                    Ok(()) => guest.serve(&mut stream).await,
                    Err(error) => Err(error),
                }
            }
            Self::Buffered(agent, bytes) => match grant(&mut stream, 1_073_741_824).await {
                Ok(()) => {
                    let (mut ours, theirs) = duplex(bytes);
                    let relayed = copy_bidirectional(&mut stream, &mut ours);
                    let ((), relayed) = tokio::join!(agent.serve(theirs), relayed);
                    relayed.map(drop)
                }
                Err(error) => Err(error),
            },
            Self::LosesFirstStart(agent, lost) => match grant(&mut stream, 1_073_741_824).await {
                Ok(()) => {
                    let (ours, theirs) = duplex(64 * 1024);
                    tokio::select! {
                        () = agent.serve(theirs) => Ok(()),
                        lost = lose_first_start(stream, ours, &lost) => lost,
                    }
                }
                Err(error) => Err(error),
            },
            Self::Refuses => Ok(()),
            Self::NeverGrants => until_end(&mut stream).await,
            Self::Grants(line) => {
                let granted = stream.write_all(&line).await;
                granted.and(until_end(&mut stream).await)
            }
            Self::FirstOnly(reply, taken) if !taken.swap(true, Ordering::SeqCst) => {
                answer(&mut stream, &reply, None).await
            }
            Self::Silent | Self::FirstOnly(..) => {
                let granted = grant(&mut stream, port).await;
                granted.and(until_end(&mut stream).await)
            }
            Self::Replies(reply) => answer(&mut stream, &reply, None).await,
            Self::Streams(reply, then) => streams(&mut stream, &reply, &then).await,
            Self::Drips(reply, pause) => answer(&mut stream, &reply, Some(pause)).await,
            Self::AnswersOnce(reply) => {
                let granted = grant(&mut stream, port).await;
                let asked = granted.and(request(&mut stream, &mut Decoder::new()).await);
                asked.map(drop).and(stream.write_all(&reply).await)
            }
            Self::AnswersTo(question, reply) => {
                let granted = grant(&mut stream, port).await;
                let asked = granted.and(until_received(&mut stream, &question).await);
                asked.and(stream.write_all(&reply).await)
            }
            Self::HangsUp => {
                let granted = grant(&mut stream, port).await;
                granted.and(request(&mut stream, &mut Decoder::new()).await.map(drop))
            }
            Self::Floods(bytes) => flood(&mut stream, &bytes).await,
            Self::SpeaksFirst(bytes) => {
                let granted = grant(&mut stream, port).await;
                granted.and(stream.write_all(&bytes).await).and(until_end(&mut stream).await)
            }
        };
    }
}

/// Reads and discards input until the client leaves.
pub(super) async fn until_end(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

/// Reads until `question` has been received.
async fn until_received(stream: &mut UnixStream, question: &[u8]) -> std::io::Result<()> {
    let mut received = Vec::new();
    while !received.windows(question.len()).any(|part| part == question) {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Grants the connection as soon as the guest runs.
async fn granted_by(guest: &Guest, stream: &mut UnixStream) -> std::io::Result<()> {
    guest.runs().await;
    if !guest.is_listening() {
        return Err(std::io::ErrorKind::ConnectionRefused.into());
    }
    grant(stream, 1_073_741_824).await
}

/// Writes the pieces with pauses, so that the other side can read them one by one.
async fn in_pieces(stream: &mut UnixStream, pieces: &[Vec<u8>]) -> std::io::Result<()> {
    for piece in pieces {
        stream.write_all(piece).await?;
        sleep(PIECE_PAUSE).await;
    }
    Ok(())
}

/// Sends `bytes` repeatedly until the client leaves.
async fn flood(stream: &mut UnixStream, bytes: &[u8]) -> std::io::Result<()> {
    grant(stream, AGENT_PORT).await?;
    loop {
        stream.write_all(bytes).await?;
    }
}

/// Sends the same reply to every request.
async fn answer(
    stream: &mut UnixStream,
    reply: &[u8],
    pause: Option<Duration>,
) -> std::io::Result<()> {
    grant(stream, AGENT_PORT).await?;
    let mut decoder = Decoder::new();
    while request(stream, &mut decoder).await?.is_some() {
        match pause {
            None => stream.write_all(reply).await?,
            Some(pause) => {
                for byte in reply.chunks(1) {
                    sleep(pause).await;
                    stream.write_all(byte).await?;
                }
            }
        }
    }
    Ok(())
}

/// Relays in both directions, but loses the reply to the first start of a program.
async fn lose_first_start(
    mut host: UnixStream,
    mut agent: DuplexStream,
    lost: &AtomicBool,
) -> std::io::Result<()> {
    let (mut from_host, mut from_agent) = ([0; 4096], [0; 4096]);
    let mut armed = false;
    loop {
        tokio::select! {
            read = host.read(&mut from_host) => {
                let bytes = &from_host[..read?];
                let starts = bytes.windows(12).any(|part| part == b"\"exec_start\"");
                armed |= starts && !lost.swap(true, Ordering::SeqCst);
                if bytes.is_empty() { return Ok(()) }
                agent.write_all(bytes).await?;
            }
            read = agent.read(&mut from_agent) => {
                let bytes = &from_agent[..read?];
                if armed || bytes.is_empty() { return Ok(()) }
                host.write_all(bytes).await?;
            }
        }
    }
}

/// Sends the same reply to every request, until a request opens a stream.
async fn streams(stream: &mut UnixStream, reply: &[u8], then: &[u8]) -> std::io::Result<()> {
    grant(stream, AGENT_PORT).await?;
    let mut decoder = Decoder::new();
    while let Some(request) = request(stream, &mut decoder).await? {
        stream.write_all(reply).await?;
        let opens = |name: &[u8]| request.windows(name.len()).any(|part| part == name);
        let names: [&[u8]; 3] = [b"\"exec_start\"", b"\"exec_attach\"", b"\"file_start\""];
        if names.into_iter().any(opens) {
            if then.is_empty() {
                return until_end(stream).await;
            }
            loop {
                stream.write_all(then).await?;
            }
        }
    }
    Ok(())
}

/// Reads a whole frame; returns `None` at the end of the stream.
pub(super) async fn request(
    stream: &mut UnixStream,
    decoder: &mut Decoder,
) -> std::io::Result<Option<Bytes>> {
    loop {
        match decoder.next_frame() {
            Ok(Some(request)) => return Ok(Some(request)),
            Ok(None) => {}
            Err(error) => return Err(std::io::Error::other(error)),
        }
        if stream.read_buf(decoder.read_buffer()).await? == 0 {
            return Ok(None);
        }
    }
}
