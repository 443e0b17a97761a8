//! What a fake VMM and the guest behind it do.

use super::{Boot, Guest, Handshakes};
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

/// Between two pieces of a line.
const PIECE_PAUSE: Duration = Duration::from_millis(2);

/// One way to behave, towards every connection.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// As a VMM with a guest whose agent is well.
    Agent(Agent),
    /// Likewise, with a guest that runs nothing, and answers as it is told to.
    Guest(Guest),
    /// Likewise, with a guest that boots.
    Boots(Boot),
    /// As `Guest`, with these pieces instead of one `OK`, a moment between them.
    GrantsInPieces(Vec<Vec<u8>>, Guest),
    /// As `Guest`, a while after CONNECT, and counted until then.
    GrantsLate(Arc<Handshakes>, Duration, Guest),
    /// As `Agent`, through a buffer of so many bytes: what is in it when the connection is
    /// [cut](super::FakeVmm::cut) is lost, as it would be in a VMM.
    Buffered(Agent, usize),
    /// Likewise, but the reply to the first request to start a program is lost, with its connection.
    LosesFirstStart(Agent, Arc<AtomicBool>),
    /// Closes after CONNECT: nobody listens in the guest.
    Refuses,
    /// Takes CONNECT and never answers: the guest or the VMM hangs.
    NeverGrants,
    /// Answers CONNECT with these bytes.
    Grants(Vec<u8>),
    /// `OK`, and then nothing, whatever is asked: a guest that was reset.
    Silent,
    /// `OK`, and this to every request.
    Replies(Vec<u8>),
    /// `OK`, and this to every request on the first connection; to all others nothing: a supervisor
    /// would think that all is well.
    FirstOnly(Vec<u8>, Arc<AtomicBool>),
    /// `OK`, this to the first request, and closes.
    AnswersOnce(Vec<u8>),
    /// `OK`, and the first to every request; behind it, if that opened a stream, the second over and
    /// over.
    Streams(Vec<u8>, Vec<u8>),
    /// As `Replies`, a byte at a time with a pause before each.
    Drips(Vec<u8>, Duration),
    /// `OK`, and closes at the first whole request.
    HangsUp,
    /// `OK`, and speaks these bytes before it is asked.
    SpeaksFirst(Vec<u8>),
    /// `OK`, and these bytes over and over, for as long as anybody reads.
    Floods(Vec<u8>),
}

impl Behaviour {
    /// Serves a connection whose CONNECT line asked for `port`, until it ends.
    pub(super) async fn serve(self, mut stream: UnixStream, port: u32) {
        if port != AGENT_PORT {
            return;
        }
        // A client that goes away ends the connection; there is nobody to tell.
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

/// Reads and ignores until the client goes away.
pub(super) async fn until_end(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

/// As soon as the guest runs.
async fn granted_by(guest: &Guest, stream: &mut UnixStream) -> std::io::Result<()> {
    guest.runs().await;
    grant(stream, 1_073_741_824).await
}

/// So that the other side can read them one by one.
async fn in_pieces(stream: &mut UnixStream, pieces: &[Vec<u8>]) -> std::io::Result<()> {
    for piece in pieces {
        stream.write_all(piece).await?;
        sleep(PIECE_PAUSE).await;
    }
    Ok(())
}

/// Ends when the client does.
async fn flood(stream: &mut UnixStream, bytes: &[u8]) -> std::io::Result<()> {
    grant(stream, AGENT_PORT).await?;
    loop {
        stream.write_all(bytes).await?;
    }
}

/// The same reply to every request.
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

/// Passes everything on, up to a reply that shall not arrive.
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

/// Likewise, until a request opens a stream.
async fn streams(stream: &mut UnixStream, reply: &[u8], then: &[u8]) -> std::io::Result<()> {
    grant(stream, AGENT_PORT).await?;
    let mut decoder = Decoder::new();
    while let Some(request) = request(stream, &mut decoder).await? {
        stream.write_all(reply).await?;
        let opens = |name: &[u8]| request.windows(name.len()).any(|part| part == name);
        if opens(b"\"exec_start\"") || opens(b"\"exec_attach\"") {
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

/// Waits for a whole frame; `None` at the end of the stream.
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
