//! Tests of streams whose agent is the test.

use super::*;
use crate::budget::MemoryBudget;
use crate::descriptors::Descriptors;
use minions_proto::channel::Channel;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Returns a stream, the agent's end of it, and its epoch.
pub(crate) fn pair(decoder: Decoder) -> (AgentStream, UnixStream, CancellationToken) {
    let epoch = CancellationToken::new();
    let (stream, theirs) = paced_pair(decoder, epoch.clone(), &Arc::default());
    (stream, theirs, epoch)
}

/// Returns a stream with the given epoch and pace, and the agent's end of it.
fn paced_pair(
    decoder: Decoder,
    epoch: CancellationToken,
    pace: &Arc<StreamPace>,
) -> (AgentStream, UnixStream) {
    pooled_pair(decoder, epoch, pace, None)
}

/// Returns a stream that gives its connection back to `pool`, and the agent's end of it.
fn pooled_pair(
    decoder: Decoder,
    epoch: CancellationToken,
    pace: &Arc<StreamPace>,
    pool: Option<Arc<PooledConnections>>,
) -> (AgentStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let permit = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let socket = AgentSocket::new(ours, MemoryBudget::default().share(), permit());
    (AgentStream::new((socket, decoder), epoch, permit(), Arc::clone(pace), pool), theirs)
}

fn frame(bytes: &'static [u8]) -> BytesMut {
    let mut out = BytesMut::new();
    ChannelMessage { channel: Channel::Stdout, payload: Bytes::from_static(bytes) }
        .encode(&mut out);
    out
}

#[tokio::test]
async fn bytes_that_arrived_with_the_reply_belong_to_the_first_message() {
    let mut decoder = Decoder::new();
    decoder.extend(&frame(b"early")[..7]);
    let (mut stream, mut agent, _epoch) = pair(decoder);
    agent.write_all(&frame(b"early")[7..]).await.unwrap();
    assert_eq!(stream.reader.next().await.unwrap().payload, "early");
}

#[tokio::test]
async fn only_a_connection_without_an_incomplete_message_returns_to_the_pool() {
    for (is_unread, is_unsent, expected) in
        [(false, false, 1), (true, false, 0), (false, true, 0), (true, true, 0)]
    {
        let mut decoder = Decoder::new();
        if is_unread {
            decoder.extend(&frame(b"half")[..6]);
        }
        let pooled = PooledConnections::new(2, Descriptors::of_process(), Arc::default());
        let pooled = Arc::new(pooled);
        let (pool, epoch) = (Some(Arc::clone(&pooled)), pooled.epoch());
        let (mut stream, _agent) = pooled_pair(decoder, epoch, &Arc::default(), pool);
        if is_unsent {
            let payload = Bytes::from_static(b"input");
            stream.writer.queue(&ChannelMessage { channel: Channel::Stdin, payload });
        }
        stream.give_back();
        assert_eq!(pooled.idle(), expected, "unread {is_unread}, unsent {is_unsent}");
    }
}

#[tokio::test]
async fn a_close_between_messages_differs_from_one_within_a_message() {
    let (mut stream, agent, _epoch) = pair(Decoder::new());
    drop(agent);
    assert!(matches!(stream.reader.next().await, Err(StreamEnd::Closed)));
    let (mut stream, mut agent, _epoch) = pair(Decoder::new());
    agent.write_all(&frame(b"half")[..6]).await.unwrap();
    drop(agent);
    assert!(matches!(stream.reader.next().await, Err(StreamEnd::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn silence_or_a_replaced_agent_ends_the_stream() {
    let (mut stream, _agent, epoch) = pair(Decoder::new());
    assert!(matches!(stream.reader.next().await, Err(StreamEnd::Silent)));
    epoch.cancel();
    assert!(matches!(stream.reader.next().await, Err(StreamEnd::Replaced)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_a_shorter_timer_does_not_hide_the_silence() {
    let (mut stream, mut agent, _epoch) = pair(Decoder::new());
    let (timer, timers) = (SILENCE / 4, 4);
    for _ in 0..2 {
        for _ in 1..timers {
            assert!(timeout(timer, stream.reader.next()).await.is_err());
        }
        // A message starts the time again.
        agent.write_all(&frame(b"alive")).await.unwrap();
        assert_eq!(stream.reader.next().await.unwrap().payload, "alive");
    }
    for _ in 1..timers {
        assert!(timeout(timer, stream.reader.next()).await.is_err());
    }
    let last = timeout(2 * timer, stream.reader.next()).await;
    assert!(matches!(last, Ok(Err(StreamEnd::Silent))), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_was_busy_elsewhere_still_gets_the_messages() {
    let (mut stream, mut agent, _epoch) = pair(Decoder::new());
    assert!(timeout(SILENCE / 2, stream.reader.next()).await.is_err());
    let long = Bytes::from(vec![7; 900_000]);
    let mut message = BytesMut::new();
    ChannelMessage { channel: Channel::Stdout, payload: long.clone() }.encode(&mut message);
    let sent = tokio::spawn(async move {
        agent.write_all(&message).await.unwrap();
        agent
    });
    sleep(SILENCE).await;
    assert!(!sent.is_finished(), "the message must exceed the socket's buffer");
    assert!(stream.reader.next().await.unwrap().payload == long);
    let _agent = sent.await.unwrap();
    // Without any byte, the silence is reported.
    assert!(timeout(SILENCE / 2, stream.reader.next()).await.is_err());
    sleep(SILENCE).await;
    assert!(matches!(stream.reader.next().await, Err(StreamEnd::Silent)));
}

#[tokio::test]
async fn a_cancelled_flush_continues_where_it_stopped() {
    let (mut stream, mut agent, _epoch) = pair(Decoder::new());
    let payload = Bytes::from(vec![7; 900_000]);
    stream.writer.queue(&ChannelMessage { channel: Channel::Stdin, payload: payload.clone() });
    let dropped = timeout(Duration::from_millis(10), stream.writer.flush()).await;
    assert!(dropped.is_err(), "the payload must exceed the socket's buffer");
    let (flushed, read) = tokio::join!(stream.writer.flush(), async {
        let mut all = vec![0; 4 + 1 + payload.len()];
        agent.read_exact(&mut all).await.map(|_| all)
    });
    flushed.unwrap();
    assert_eq!(read.unwrap()[5..], payload);
}

async fn read(stream: &mut AgentStream, messages: usize) {
    for _ in 0..messages {
        assert_eq!(stream.reader.next().await.unwrap().payload, "x");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_of_one_vm_share_a_rate_and_another_vm_has_its_own() {
    let pace: Arc<StreamPace> = Arc::default();
    let (mut first, mut first_agent) = paced_pair(Decoder::new(), CancellationToken::new(), &pace);
    let (mut second, mut second_agent) =
        paced_pair(Decoder::new(), CancellationToken::new(), &pace);
    let (mut other, mut other_agent) =
        paced_pair(Decoder::new(), CancellationToken::new(), &Arc::default());
    let flood = frame(b"x").repeat(2_000);
    for agent in [&mut first_agent, &mut second_agent, &mut other_agent] {
        agent.write_all(&flood).await.unwrap();
    }
    // Paused time passes only while all tasks wait.
    let started = Instant::now();
    read(&mut first, 900).await;
    assert_eq!(started.elapsed(), Duration::ZERO, "within the burst");
    read(&mut second, 2_000).await;
    read(&mut first, 1_100).await;
    let waited = started.elapsed().as_millis();
    assert!((60..70).contains(&waited), "4,000 messages at 20 us each, less the burst: {waited}");
    let started = Instant::now();
    read(&mut other, 900).await;
    assert_eq!(started.elapsed(), Duration::ZERO, "the other VM has its own rate");
}
