//! Offsets, acks, and input over broken connections.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn attached(stdin: u64, acked: u64) -> ExecAttached {
    ExecAttached {
        id: "x".parse().unwrap(),
        created: true,
        pid: 1,
        stdout: 0,
        stderr: 0,
        stdin,
        stdin_acked: acked,
        stdin_window: 100,
        stdin_closed: false,
        reattach_grace_ms: None,
    }
}

fn agent(control: &AgentControl) -> ChannelMessage {
    ChannelMessage::agent(control)
}

fn receive(client: &mut ExecClient, message: ChannelMessage) -> Result<StreamEvent, StreamError> {
    client.receive(message, Instant::now())
}

#[test]
fn a_flood_of_empty_messages_is_rejected_and_one_of_single_bytes_is_not() {
    let start = Instant::now();
    let byte = |channel| ChannelMessage { channel, payload: Bytes::from_static(b"x") };
    for empty in [
        agent(&AgentControl::Heartbeat),
        agent(&AgentControl::Unknown),
        agent(&AgentControl::Ack { stdin: 0 }),
        ChannelMessage { channel: Channel::Stderr, payload: Bytes::new() },
    ] {
        let mut client = ExecClient::new(&attached(0, 0), start).unwrap();
        let flood = (0..5_000).map(|_| client.receive(empty.clone(), start));
        let refused = flood.into_iter().find_map(Result::err);
        assert!(matches!(refused, Some(StreamError::Empty(_))), "{empty:?}: {refused:?}");
        for channel in [Channel::Stdout, Channel::Stderr] {
            assert!((0..5_000).all(|_| client.receive(byte(channel), start).is_ok()));
        }
    }
}

#[test]
fn an_ack_is_due_after_enough_bytes_or_on_demand() {
    let mut client = ExecClient::new(&attached(0, 0), Instant::now()).unwrap();
    assert_eq!(client.ack(true), None);
    let payload = Bytes::from_static(b"abc");
    receive(&mut client, ChannelMessage { channel: Channel::Stderr, payload }).unwrap();
    assert_eq!(client.ack(false), None);
    assert_eq!(client.ack(true), Some(HostControl::Ack { stdout: 0, stderr: 3 }));
    assert_eq!(client.ack(true), None);
    let payload = Bytes::from(vec![0; 128 * 1024]);
    receive(&mut client, ChannelMessage { channel: Channel::Stdout, payload }).unwrap();
    assert!(client.ack(false).is_some());
}

#[test]
fn a_gap_moves_the_offset_only_forward_from_the_current_one() {
    let mut client = ExecClient::new(&attached(0, 0), Instant::now()).unwrap();
    let gap = |from, to| agent(&AgentControl::Gap { stream: OutputStream::Stdout, from, to });
    assert_eq!(receive(&mut client, gap(0, 7)).unwrap(), StreamEvent::Gap(OutputStream::Stdout, 7));
    assert_eq!(client.received(OutputStream::Stdout), 7);
    assert!(receive(&mut client, gap(6, 9)).is_err());
    assert!(receive(&mut client, gap(7, 5)).is_err());
    for beyond in [MAX_OFFSET + 1, 1 << 62, u64::MAX] {
        let refused = receive(&mut client, gap(7, beyond));
        assert!(matches!(refused, Err(StreamError::TooLarge { offset, .. }) if offset == beyond));
    }
    assert_eq!(receive(&mut client, gap(7, 9)).unwrap(), StreamEvent::Gap(OutputStream::Stdout, 2));
    assert!(receive(&mut client, gap(9, MAX_OFFSET)).is_ok());
}

#[test]
fn the_largest_offset_is_exact_in_every_json_reader() {
    assert_eq!(MAX_OFFSET, 9_007_199_254_740_991);
    assert!(check_offset("stdout", MAX_OFFSET).is_ok());
    assert!(check_offset("stdout", MAX_OFFSET + 1).is_err());
}

#[test]
fn there_is_input_until_it_and_its_end_are_sent() {
    let mut client = ExecClient::new(&attached(0, 0), Instant::now()).unwrap();
    assert!(!client.has_input());
    client.push_input(Bytes::from_static(b"abc"));
    assert!(client.has_input());
    assert_eq!(client.next_input().unwrap().payload, "abc");
    assert!(!client.has_input());
    client.close_input();
    assert!(client.has_input());
    assert_eq!(client.next_input().unwrap().payload, "");
    assert!(!client.has_input());
}

#[test]
fn an_ack_of_input_that_was_never_sent_is_rejected() {
    let mut client = ExecClient::new(&attached(0, 0), Instant::now()).unwrap();
    client.push_input(Bytes::from_static(b"abc"));
    assert!(receive(&mut client, agent(&AgentControl::Ack { stdin: 4 })).is_err());
    assert!(client.resume(&attached(4, 0)).is_err());
    let mut later = attached(0, 0);
    later.stdout = 1;
    assert!(client.resume(&later).is_err());
}

#[test]
fn output_that_resumes_at_another_offset_is_rejected() {
    let change: [fn(&mut ExecAttached) -> &mut u64; 2] =
        [|attached| &mut attached.stdout, |attached| &mut attached.stderr];
    for change in change {
        let mut client = ExecClient::new(&attached(0, 0), Instant::now()).unwrap();
        for channel in [Channel::Stdout, Channel::Stderr] {
            let payload = Bytes::from_static(b"abc");
            receive(&mut client, ChannelMessage { channel, payload }).unwrap();
        }
        for (offset, is_right) in [(2, false), (3, true), (4, false)] {
            let mut reply = ExecAttached { stdout: 3, stderr: 3, ..attached(0, 0) };
            *change(&mut reply) = offset;
            assert_eq!(client.resume(&reply).is_ok(), is_right, "{reply:?}");
        }
    }
}

#[test]
fn the_window_of_a_resumed_stream_is_that_of_the_reply() {
    let mut client = ExecClient::new(&attached(0, 0), Instant::now()).unwrap();
    client.push_input(Bytes::from_static(b"abc"));
    assert_eq!(client.input_room(), 97);
    for window in [40, 400, 2] {
        let reply = ExecAttached { stdin_window: window, ..attached(1, 0) };
        client.resume(&reply).unwrap();
        let room = usize::try_from(window).unwrap().saturating_sub(3);
        assert_eq!(client.input_room(), room, "three bytes are not acknowledged");
    }
}

#[test]
fn offsets_that_no_program_reaches_are_rejected() {
    let change: [fn(&mut ExecAttached, u64); 3] = [
        |attached, offset| attached.stdout = offset,
        |attached, offset| attached.stderr = offset,
        |attached, offset| (attached.stdin, attached.stdin_acked) = (offset, offset),
    ];
    for change in change {
        for (offset, is_right) in [(MAX_OFFSET, true), (MAX_OFFSET + 1, false), (u64::MAX, false)] {
            let mut reply = attached(0, 0);
            change(&mut reply, offset);
            assert_eq!(ExecClient::new(&reply, Instant::now()).is_ok(), is_right, "{reply:?}");
        }
    }
    assert!(ExecClient::new(&attached(3, 4), Instant::now()).is_err());
}

#[test]
fn the_largest_offsets_do_not_overflow() {
    let mut reply = attached(MAX_OFFSET, MAX_OFFSET);
    (reply.stdout, reply.stderr, reply.stdin_window) = (MAX_OFFSET, MAX_OFFSET, u64::MAX);
    let mut client = ExecClient::new(&reply, Instant::now()).unwrap();
    for channel in [Channel::Stdout, Channel::Stderr] {
        let payload = Bytes::from_static(b"abc");
        receive(&mut client, ChannelMessage { channel, payload }).unwrap();
    }
    assert!(client.ack(true).is_some());
    client.push_input(Bytes::from_static(b"abc"));
    assert_eq!(client.next_input().unwrap().payload, "abc");
    assert!(client.input_room() > 0);
}

#[test]
fn input_of_another_client_is_not_sent_again_and_counts_in_the_window() {
    let mut client = ExecClient::new(&attached(70, 40), Instant::now()).unwrap();
    assert_eq!(client.input_room(), 70);
    client.push_input(Bytes::from_static(b"abc"));
    assert_eq!(client.next_input().unwrap().payload, "abc");
    receive(&mut client, agent(&AgentControl::Ack { stdin: 60 })).unwrap();
    client.resume(&attached(72, 65)).unwrap();
    assert_eq!(client.next_input().unwrap().payload, "c");
    receive(&mut client, agent(&AgentControl::Ack { stdin: 73 })).unwrap();
    assert_eq!(client.input_room(), 100);
}

proptest! {
    /// The agent receives every input byte once, wherever connections break.
    #[test]
    fn input_survives_broken_connections(
        input in vec(any::<u8>(), 0..1000),
        steps in vec((0_usize..40, 0_usize..6, 0_usize..60, any::<bool>()), 1..80),
    ) {
        let mut client = ExecClient::new(&attached(0, 0), Instant::now()).unwrap();
        let (mut source, mut arrived, mut taken, mut closed) = (&input[..], Vec::new(), 0_u64, false);
        for (push, send, take, breaks) in steps.into_iter().chain([(1000, 1000, 1000, false); 40]) {
            let len = push.min(client.input_room()).min(source.len());
            client.push_input(Bytes::copy_from_slice(&source[..len]));
            source = &source[len..];
            if source.is_empty() {
                client.close_input();
            }
            for n in 0..send {
                let Some(message) = client.next_input() else { break };
                // The last message before a break is lost in transit.
                if breaks && n + 1 == send {
                    break;
                }
                closed |= message.payload.is_empty();
                arrived.extend_from_slice(&message.payload);
                prop_assert!(arrived.len() as u64 <= taken + 100);
            }
            taken = (taken + take as u64).min(arrived.len() as u64);
            if breaks {
                let mut reply = attached(arrived.len() as u64, taken);
                reply.stdin_closed = closed;
                client.resume(&reply).unwrap();
            } else {
                receive(&mut client, agent(&AgentControl::Ack { stdin: taken })).unwrap();
            }
        }
        prop_assert_eq!(arrived, input);
        prop_assert!(closed);
    }
}
