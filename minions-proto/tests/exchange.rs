//! Handshake and connection over a stream that misbehaves in every way seen in the field.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use minions_proto::connection::{Connection, ExchangeError, Liveness, ProtocolError};
use minions_proto::error::{AgentError, ErrorCode};
use minions_proto::foreign_service::ServiceKind;
use minions_proto::handshake::{HandshakeError, accept, grant, initiate};
use minions_proto::message::{Health, HealthCheck, encode_error, encode_reply};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(2);

fn soon() -> Instant {
    Instant::now() + DEADLINE
}

fn health(hostname: &str) -> Vec<u8> {
    encode_reply(&Health {
        uptime_secs: 1,
        hostname: hostname.into(),
        agent: None,
        time_unix_ms: None,
        quiesced: None,
        network_changes: None,
    })
    .unwrap()
}

/// Returns the result of `initiate` for an answer, and the bytes left in the stream after it.
async fn handshake(answer: &[u8], close: bool) -> (Result<(), HandshakeError>, Vec<u8>) {
    let (mut host, mut vmm) = duplex(1024);
    vmm.write_all(answer).await.unwrap();
    if close {
        vmm.shutdown().await.unwrap();
    }
    let result = initiate(&mut host, 1024, DEADLINE).await;
    drop(vmm);
    let mut rest = Vec::new();
    host.read_to_end(&mut rest).await.unwrap();
    (result, rest)
}

#[tokio::test]
async fn connect_is_sent_in_one_write() {
    // A pipe of the line's size accepts it in one write; with a byte less the write is split.
    let (mut host, mut vmm) = duplex("CONNECT 1024\n".len());
    let vmm = tokio::spawn(async move {
        let port = accept(&mut vmm, DEADLINE).await.unwrap();
        grant(&mut vmm, 1_073_741_824).await.unwrap();
        port
    });
    initiate(&mut host, 1024, DEADLINE).await.unwrap();
    assert_eq!(vmm.await.unwrap(), 1024);

    let (mut host, _vmm) = duplex("CONNECT 1024\n".len() - 1);
    let split = initiate(&mut host, 1024, DEADLINE).await;
    assert!(matches!(split, Err(HandshakeError::SplitWrite)), "{split:?}");
}

#[tokio::test]
async fn bytes_that_arrive_with_the_ok_belong_to_the_first_frame() {
    let (result, rest) = handshake(b"OK 1024\n\x00\x00\x00\x02{}", true).await;
    result.unwrap();
    assert_eq!(rest, b"\x00\x00\x00\x02{}");
}

#[tokio::test]
async fn a_close_without_a_line_means_refused() {
    assert!(matches!(handshake(b"", true).await.0, Err(HandshakeError::Refused)));
    assert!(matches!(handshake(b"OK 10", true).await.0, Err(HandshakeError::Truncated)));
    let (mut host, vmm) = duplex(64);
    drop(vmm);
    let gone = initiate(&mut host, 1024, DEADLINE).await;
    assert!(matches!(gone, Err(HandshakeError::Refused)), "{gone:?}");
}

#[tokio::test]
async fn a_reset_before_the_answer_means_refused() {
    let (mut host, vmm) = UnixStream::pair().unwrap();
    // The kernel resets the connection when its peer closes it without having read CONNECT.
    let close = async {
        vmm.readable().await.unwrap();
        drop(vmm);
    };
    let (reset, ()) = tokio::join!(initiate(&mut host, 1024, DEADLINE), close);
    assert!(matches!(reset, Err(HandshakeError::Refused)), "{reset:?}");
}

#[tokio::test]
async fn only_the_exact_form_of_ok_is_accepted() {
    for line in ["OK\n", "OK \n", "OK -1\n", "OK 1 \n", "ok 1\n", "OK 1\r\n", "NOT OK 1\n", "\n"] {
        let result = handshake(line.as_bytes(), true).await.0;
        assert!(matches!(result, Err(HandshakeError::Line(_))), "{line:?}: {result:?}");
    }
}

#[tokio::test]
async fn a_line_without_a_newline_ends_at_the_limit() {
    let (result, rest) = handshake(&[b'O'; 1000], true).await;
    assert!(matches!(result, Err(HandshakeError::Line(_))), "{result:?}");
    assert_eq!(rest.len(), 1000 - 32);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    let start = Instant::now();
    let result = handshake(b"OK ", false).await.0;
    assert!(matches!(result, Err(HandshakeError::TimedOut(_))), "{result:?}");
    assert_eq!(start.elapsed(), DEADLINE);
}

#[tokio::test]
async fn an_exchange_works_one_byte_at_a_time() {
    let (host, mut agent) = duplex(1);
    let agent = tokio::spawn(async move {
        let mut request = [0; 27];
        agent.read_exact(&mut request).await.unwrap();
        agent.write_all(&health("drip")).await.unwrap();
        agent
    });
    let mut connection = Connection::new(host);
    let reply = connection.call(&HealthCheck {}, soon()).await.unwrap();
    assert_eq!(reply.hostname, "drip");
    assert!(connection.is_reusable());
    drop(agent.await.unwrap());
}

async fn answered_with(
    reply: &[u8],
) -> (Connection<DuplexStream>, DuplexStream, Result<Health, ExchangeError>) {
    let (host, mut agent) = duplex(64 * 1024);
    let mut connection = Connection::new(host);
    let script = async {
        let mut request = [0; 27];
        agent.read_exact(&mut request).await.unwrap();
        agent.write_all(reply).await.unwrap();
        agent
    };
    let (result, agent) = tokio::join!(connection.call(&HealthCheck {}, soon()), script);
    (connection, agent, result)
}

#[tokio::test]
async fn an_error_reply_leaves_the_connection_usable() {
    let (connection, _agent, result) =
        answered_with(b"\x00\x00\x00\x21{\"status\":\"error\",\"message\":\"no\"}").await;
    assert!(matches!(result, Err(ExchangeError::Agent(_))), "{result:?}");
    assert!(connection.is_reusable());
}

#[tokio::test]
async fn two_replies_to_one_request_violate_the_protocol() {
    let twice = [health("a"), health("b")].concat();
    let (connection, _agent, result) = answered_with(&twice).await;
    assert!(
        matches!(result, Err(ExchangeError::Protocol(ProtocolError::Unexpected))),
        "{result:?}"
    );
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn garbage_and_oversize_replies_poison_the_connection() {
    for reply in
        [&b"\x00\x00\x00\x02[]"[..], b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"HTTP/1.1 200 OK"]
    {
        let (connection, _agent, result) = answered_with(reply).await;
        assert!(matches!(result, Err(ExchangeError::Protocol(_))), "{result:?}");
        assert!(!connection.is_reusable());
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_a_reply_that_never_ends() {
    let (connection, _agent, result) = answered_with(b"\x00\x00\x00\x41{\"status\"").await;
    assert!(matches!(result, Err(ExchangeError::TimedOut)), "{result:?}");
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn a_dropped_exchange_poisons_the_connection_and_a_late_reply_is_never_read() {
    let (host, mut agent) = duplex(1024);
    let mut connection = Connection::new(host);
    {
        let call = connection.call(&HealthCheck {}, soon());
        tokio::select! {
            biased;
            _ = call => panic!("the call ended without an answer"),
            () = std::future::ready(()) => {}
        }
    }
    assert!(!connection.is_reusable() && connection.is_unanswered());
    agent.write_all(&health("late")).await.unwrap();
    let next = connection.call(&HealthCheck {}, soon()).await;
    assert!(matches!(next, Err(ExchangeError::Lost { sent: false, .. })), "{next:?}");
}

#[tokio::test]
async fn an_idle_connection_that_closed_or_sent_bytes_is_dead() {
    let (host, agent) = duplex(1024);
    let mut quiet = Connection::new(host);
    assert_eq!(quiet.liveness(), Liveness::Quiet);
    drop(agent);
    assert_eq!(quiet.liveness(), Liveness::Dead);

    let (host, mut agent) = duplex(1024);
    let mut chatty = Connection::new(host);
    agent.write_all(&health("early")).await.unwrap();
    let result = chatty.call(&HealthCheck {}, soon()).await;
    assert!(matches!(result, Err(ExchangeError::Lost { sent: false, .. })), "{result:?}");
    assert!(!chatty.is_unanswered(), "it is broken");
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_still_received_after_its_wait_was_abandoned() {
    let (host, mut agent) = duplex(4096);
    let mut connection = Connection::new(host);
    connection.ask(&HealthCheck {}, soon()).await.unwrap();
    assert!(!connection.is_reusable());
    let reply = health("late");
    for piece in reply.chunks(7) {
        let waited =
            tokio::time::timeout(DEADLINE, connection.answer::<HealthCheck>()).await.is_ok();
        assert!(!waited, "the reply was not complete");
        agent.write_all(piece).await.unwrap();
    }
    assert_eq!(connection.answer::<HealthCheck>().await.unwrap().hostname, "late");
    assert!(connection.is_reusable());
}

#[tokio::test]
async fn outstanding_replies_are_matched_in_order_and_nothing_else_is_sent_before_the_last() {
    let (host, mut agent) = duplex(4096);
    let mut connection = Connection::new(host);
    for _ in 0..3 {
        connection.ask(&HealthCheck {}, soon()).await.unwrap();
    }
    assert_eq!(connection.outstanding(), 3);
    agent.write_all(&[health("1"), health("2")].concat()).await.unwrap();
    for expected in ["1", "2"] {
        assert_eq!(connection.answer::<HealthCheck>().await.unwrap().hostname, expected);
        assert!(!connection.is_reusable());
    }
    let early = connection.call(&HealthCheck {}, soon()).await;
    assert!(matches!(early, Err(ExchangeError::Lost { sent: false, .. })), "{early:?}");
    agent.write_all(&[health("3"), health("nobody's")].concat()).await.unwrap();
    let third = connection.answer::<HealthCheck>().await;
    assert!(matches!(third, Err(ExchangeError::Protocol(ProtocolError::Unexpected))), "{third:?}");
    assert!(!connection.is_reusable(), "a fourth reply to three requests");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_sent_in_part_leaves_the_connection_poisoned() {
    let (host, mut agent) = duplex(27 + 5);
    let mut connection = Connection::new(host);
    connection.ask(&HealthCheck {}, soon()).await.unwrap();
    let second = connection.ask(&HealthCheck {}, soon()).await;
    assert!(matches!(second, Err(ExchangeError::TimedOut)), "{second:?}");
    let reply = health("1");
    let (written, answered) =
        tokio::join!(agent.write_all(&reply), connection.answer::<HealthCheck>());
    written.unwrap();
    answered.unwrap();
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn the_end_of_the_stream_ends_the_wait_for_a_reply() {
    let (host, agent) = duplex(4096);
    let mut connection = Connection::new(host);
    connection.ask(&HealthCheck {}, soon()).await.unwrap();
    drop(agent);
    let lost = connection.answer::<HealthCheck>().await;
    assert!(matches!(lost, Err(ExchangeError::Lost { sent: true, .. })), "{lost:?}");
}

#[tokio::test]
async fn a_foreign_service_is_recognised_by_its_first_bytes_whenever_it_sends_them() {
    let banner = b"SSH-2.0-OpenSSH_9.2p1\r\n";
    let (connection, _agent, result) = answered_with(banner).await;
    assert!(matches!(result, Err(ExchangeError::Protocol(_))), "{result:?}");
    assert_eq!(connection.foreign_service().map(|service| service.kind), Some(ServiceKind::Ssh));

    // Sent before the first request.
    let (host, mut server) = duplex(1024);
    let mut connection = Connection::new(host);
    server.write_all(banner).await.unwrap();
    let asked = connection.call(&HealthCheck {}, soon()).await;
    assert!(matches!(asked, Err(ExchangeError::Lost { sent: false, .. })), "{asked:?}");
    let service = connection.foreign_service().unwrap();
    assert_eq!(service.to_string(), "an SSH server: \"SSH-2.0-OpenSSH_9.2p1\"");

    // Sent in pieces, of which the first could be an agent's.
    let (host, mut server) = duplex(1024);
    let mut connection = Connection::new(host);
    let script = async {
        for piece in [&b"\0\0\x12\x04"[..], b"\0\0", b"\0\0\0\0"] {
            server.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(server);
    };
    connection.ask(&HealthCheck {}, soon()).await.unwrap();
    let (result, ()) = tokio::join!(connection.answer::<HealthCheck>(), script);
    assert!(matches!(result, Err(ExchangeError::Lost { .. })), "{result:?}");
    assert_eq!(connection.foreign_service().map(|service| service.kind), Some(ServiceKind::Http2));

    let (connection, ..) = answered_with(&health("web-1")).await;
    assert_eq!(connection.foreign_service(), None);
}

#[tokio::test]
async fn bytes_after_an_error_reply_to_an_opening_request_are_a_violation() {
    let refusal = encode_error(&AgentError::new(ErrorCode::Busy, "full")).unwrap();
    for (extra, is_reusable) in [(&b""[..], true), (b"x", false)] {
        let (host, mut agent) = duplex(64 * 1024);
        let mut connection = Connection::new(host);
        let script = async {
            let mut request = [0; 27];
            agent.read_exact(&mut request).await.unwrap();
            agent.write_all(&[&refusal[..], extra].concat()).await.unwrap();
        };
        let (opened, ()) = tokio::join!(connection.open(&HealthCheck {}, soon()), script);
        match opened {
            Err(ExchangeError::Agent(error)) if is_reusable => assert_eq!(error.message, "full"),
            Err(ExchangeError::Protocol(ProtocolError::Unexpected)) if !is_reusable => {}
            opened => panic!("{extra:?}: {opened:?}"),
        }
        assert_eq!(connection.is_reusable(), is_reusable);
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_connection_whose_reply_may_still_come_is_unanswered() {
    // No reply before the deadline: it may still come.
    let (host, _agent) = duplex(64 * 1024);
    let mut connection = Connection::new(host);
    let late = connection.call(&HealthCheck {}, soon()).await;
    assert!(matches!(late, Err(ExchangeError::TimedOut)), "{late:?}");
    assert!(connection.is_unanswered() && !connection.has_partial_reply());

    // A part of the reply arrived.
    let (host, mut agent) = duplex(64 * 1024);
    let mut connection = Connection::new(host);
    connection.ask(&HealthCheck {}, soon()).await.unwrap();
    agent.write_all(&health("slow")[..7]).await.unwrap();
    let late = timeout(DEADLINE, connection.answer::<HealthCheck>()).await;
    assert!(late.is_err(), "{late:?}");
    assert!(connection.has_partial_reply());

    // The agent closed the connection in the middle: nothing can come any more.
    let (host, mut agent) = duplex(64 * 1024);
    let mut connection = Connection::new(host);
    let script = async {
        let mut request = [0; 27];
        agent.read_exact(&mut request).await.unwrap();
        drop(agent);
    };
    let (lost, ()) = tokio::join!(connection.call(&HealthCheck {}, soon()), script);
    assert!(matches!(lost, Err(ExchangeError::Lost { sent: true, .. })), "{lost:?}");
    assert!(!connection.is_unanswered());
}
