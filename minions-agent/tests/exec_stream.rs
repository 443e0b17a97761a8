//! Streams of execs over the wire: output, input, terminals, signals.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::ErrorCode;
use minions_proto::channel::{AgentControl, Channel, HostControl};
use minions_proto::exec_client::{ExecClient, StreamEvent};
use minions_proto::message::{
    ExecAttach, ExecInspect, ExecStart, Feature, HealthCheck, OnDisconnect, Outcome, Role, Tty,
};
use std::time::{Duration, Instant};
use support::channel::Stream;
use support::{RunningAgent, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn sh(script: &str) -> ExecStart {
    ExecStart {
        command: "sh".into(),
        args: vec!["-c".into(), script.into()],
        ..ExecStart::default()
    }
}

fn with_tty(script: &str) -> ExecStart {
    ExecStart { tty: Some(Tty { rows: 30, cols: 100, term: None }), ..sh(script) }
}

/// Returns pseudo-random bytes, so that a shifted or missing part is noticed.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[tokio::test]
async fn both_streams_arrive_byte_for_byte_before_the_end() {
    let agent = RunningAgent::start().await;
    let noise = noise(3_000_000);
    let file = agent.dir().join("noise");
    std::fs::write(&file, &noise).unwrap();
    let script = format!("cat {0}; tail -c 700000 {0} >&2; exit 7", file.display());
    let all = Stream::open(&agent, &sh(&script)).await.unwrap().collect().await;
    assert!(all.stdout == noise && all.stderr == noise[2_300_000..]);
    let ended = all.ended.unwrap();
    assert_eq!(ended.outcome, Outcome::Exited { code: 7 });
    assert!(ended.usage.max_rss_bytes > 100_000, "{ended:?}");
}

#[tokio::test]
async fn cat_echoes_input_while_both_directions_are_full() {
    let agent = RunningAgent::start().await;
    let noise = noise(5_000_000);
    let start = ExecStart { command: "cat".into(), stdin: true, ..ExecStart::default() };
    let stream = Stream::open(&agent, &start).await.unwrap();
    let mut client = ExecClient::new(&stream.attached, Instant::now()).unwrap();
    let (socket, mut decoder) = stream.into_parts();
    let (mut read, mut write) = socket.into_split();
    let (mut source, mut echoed, mut out) = (&noise[..], Vec::new(), bytes::BytesMut::new());
    let ended = loop {
        let room = client.input_room().min(source.len());
        client.push_input(bytes::Bytes::copy_from_slice(&source[..room]));
        source = &source[room..];
        if source.is_empty() {
            client.close_input();
        }
        while let Some(message) = client.next_input() {
            message.encode(&mut out);
        }
        if let Some(ack) = client.ack(false) {
            minions_proto::channel::ChannelMessage::host(&ack).encode(&mut out);
        }
        tokio::select! {
            sent = write.write_buf(&mut out), if !out.is_empty() => assert!(sent.unwrap() > 0),
            got = read.read_buf(decoder.read_buffer()) => assert!(got.unwrap() > 0),
        }
        let mut ended = None;
        while let Some(payload) = decoder.next_frame().unwrap() {
            let message = minions_proto::channel::ChannelMessage::decode(payload).unwrap();
            match client.receive(message, Instant::now()).unwrap() {
                StreamEvent::Output(_, bytes) => echoed.extend_from_slice(&bytes),
                StreamEvent::Ended(end) => ended = Some(end),
                StreamEvent::InputTaken | StreamEvent::Heartbeat => {}
                other => panic!("{other:?}"),
            }
        }
        if let Some(ended) = ended {
            break ended;
        }
    };
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
    assert!(echoed == noise, "{} bytes came back", echoed.len());
}

#[tokio::test]
async fn leaving_ends_the_program_at_once_even_if_the_host_closes_without_reading() {
    // Shorter than the re-attach grace.
    const AT_ONCE: Duration = Duration::from_secs(10);
    let agent = RunningAgent::start().await;
    for round in 0..20 {
        let id: minions_proto::message::ExecId = format!("yes-{round}").parse().unwrap();
        let start = ExecStart { id: Some(id.clone()), ..sh("exec yes") };
        let stream = Stream::open(&agent, &start).await.unwrap();
        let (mut socket, _) = stream.into_parts();
        socket.read_exact(&mut [0; 4096]).await.unwrap();
        let mut leave = bytes::BytesMut::new();
        minions_proto::channel::ChannelMessage::host(&HostControl::Leave).encode(&mut leave);
        socket.write_all(&leave).await.unwrap();
        drop(socket);
        let inspect = ExecInspect { id, wait_ms: Some(10_000) };
        let info = tokio::time::timeout(AT_ONCE, agent.call(&inspect)).await;
        let ended = info.is_ok_and(|info| info.unwrap().outcome.is_some());
        assert!(ended, "round {round}: the agent never read `leave`");
    }
}

#[tokio::test]
async fn a_program_waits_for_a_reader_that_has_stopped() {
    let agent = RunningAgent::start().await;
    let start = ExecStart { id: Some("yes".parse().unwrap()), ..sh("exec yes") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    let inspect = ExecInspect { id: "yes".parse().unwrap(), wait_ms: None };
    // If two looks find the same number, the program has stopped.
    let mut before = 0;
    let written = until("the program waits", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = agent.call(&inspect).await.unwrap().stdout_bytes;
        let stopped = now > 0 && now == before;
        before = now;
        stopped.then_some(now)
    })
    .await;
    assert!(written <= 512 * 1024, "{written} bytes are kept for a reader that reads nothing");
    // It continues when the reader does.
    let mut got = 0;
    while got < 5_000_000 {
        got += stream.output().await.len() as u64;
        stream.control(HostControl::Ack { stdout: got, stderr: 0 }).await;
    }
}

#[tokio::test]
async fn output_before_the_end_waits_for_a_slow_reader() {
    let agent = RunningAgent::start().await;
    let start = ExecStart { id: Some("slow".parse().unwrap()), ..sh("seq 300000; exit 3") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    let mut text = Vec::new();
    // Acknowledge nothing until the ring is full and the rest of the output is in the pipe.
    while text.len() < 512 * 1024 {
        text.extend_from_slice(&stream.output().await);
    }
    stream.control(HostControl::Ack { stdout: text.len() as u64, stderr: 0 }).await;
    let rest = stream.collect().await;
    text.extend_from_slice(&rest.stdout);
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(text == expected.as_bytes(), "{} of {} bytes", text.len(), expected.len());
    assert_eq!(rest.ended.unwrap().outcome, Outcome::Exited { code: 3 });
}

#[tokio::test]
async fn a_background_child_does_not_delay_the_end() {
    let agent = RunningAgent::start().await;
    let stream = Stream::open(&agent, &sh("sleep 300 & echo $!")).await.unwrap();
    let all = stream.collect().await;
    assert_eq!(all.ended.unwrap().outcome, Outcome::Exited { code: 0 });
    support::kill(String::from_utf8(all.stdout).unwrap().trim().parse().unwrap());
    // The same for a child that never stops writing.
    let all = Stream::open(&agent, &sh("yes & exit 4")).await.unwrap().collect().await;
    assert_eq!(all.ended.unwrap().outcome, Outcome::Exited { code: 4 });
}

#[tokio::test]
async fn input_is_empty_unless_requested_and_its_end_is_explicit() {
    let agent = RunningAgent::start().await;
    let all = Stream::open(&agent, &sh("cat; echo end")).await.unwrap().collect().await;
    assert_eq!(all.stdout, b"end\n");
    let start = ExecStart { stdin: true, ..sh("cat; echo end") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    stream.send(Channel::Stdin, b"one\n").await;
    assert_eq!(stream.output().await, "one\n");
    stream.send(Channel::Stdin, b"two\n").await;
    assert_eq!(stream.output().await, "two\n");
    stream.send(Channel::Stdin, b"").await;
    assert_eq!(stream.collect().await.stdout, b"end\n");
}

#[tokio::test]
async fn further_input_is_dropped_silently_once_the_program_closed_it() {
    let agent = RunningAgent::start().await;
    let start = ExecStart { stdin: true, ..sh("exec <&-; echo closed; sleep 1; echo end") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    stream.until("closed").await;
    for _ in 0..64 {
        stream.send(Channel::Stdin, &[0; 4096]).await;
    }
    stream.send(Channel::Stdin, b"").await;
    let all = stream.collect().await;
    assert_eq!((all.stdout, all.refusals), (b"end\n".to_vec(), Vec::new()));
}

#[tokio::test]
async fn input_beyond_the_window_is_refused_and_the_stream_continues() {
    let agent = RunningAgent::start().await;
    let start = ExecStart { stdin: true, ..sh("sleep 300") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    for _ in 0..8 {
        stream.send(Channel::Stdin, &[0; 64 * 1024]).await;
    }
    let refusal = loop {
        let message = stream.next().await.unwrap();
        if let AgentControl::Error(error) = message.agent_control().unwrap() {
            break error;
        }
    };
    assert_eq!(refusal.code, Some(ErrorCode::BadRequest));
    stream.control(HostControl::Signal { signal: "KILL".parse().unwrap() }).await;
    let ended = stream.collect().await.ended.unwrap();
    assert_eq!(ended.outcome, Outcome::Signaled { signal: 9, core: false, reason: None });
}

#[tokio::test]
async fn the_program_receives_any_signal_by_name() {
    let agent = RunningAgent::start().await;
    for (name, number) in [("USR1", 10), ("SIGHUP", 1), ("RTMIN+1", 35)] {
        let mut stream = Stream::open(&agent, &sh("echo up; sleep 300")).await.unwrap();
        stream.until("up").await;
        stream.control(HostControl::Signal { signal: name.parse().unwrap() }).await;
        let ended = stream.collect().await.ended.unwrap();
        assert!(
            matches!(ended.outcome, Outcome::Signaled { signal, .. } if signal == number),
            "{name}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn an_invalid_control_message_is_refused_and_the_stream_continues() {
    let agent = RunningAgent::start().await;
    let start = ExecStart { stdin: true, ..sh("cat") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    for junk in [&b"{"[..], b"[]", br#"{"type":"signal","signal":"NOPE"}"#, br#"{"type":"resize"}"#]
    {
        stream.send(Channel::Control, junk).await;
    }
    // Types of later versions are ignored instead.
    stream.send(Channel::Control, br#"{"type":"teleport"}"#).await;
    stream.send(Channel::Stdin, b"alive").await;
    stream.send(Channel::Stdin, b"").await;
    let all = stream.collect().await;
    assert_eq!((all.stdout, all.refusals.len()), (b"alive".to_vec(), 4));
}

#[tokio::test]
async fn a_terminal_has_the_requested_size_and_controls_the_session() {
    let agent = RunningAgent::start().await;
    // Without a controlling terminal, /dev/tty cannot be opened.
    let script = "tty; stty size; echo $TERM; echo direct >/dev/tty; exit 5";
    let all = Stream::open(&agent, &with_tty(script)).await.unwrap().collect().await;
    let text = String::from_utf8(all.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{text}");
    assert_eq!(lines[1..], ["30 100", "xterm-256color", "direct"]);
    assert_eq!(all.ended.unwrap().outcome, Outcome::Exited { code: 5 });
    assert!(all.stderr.is_empty());
}

#[tokio::test]
async fn a_terminal_can_be_resized_interrupted_and_closed() {
    let agent = RunningAgent::start().await;
    let script = "trap 'stty size; exit 4' WINCH; echo up; while :; do sleep 0.05; done";
    let mut stream = Stream::open(&agent, &with_tty(script)).await.unwrap();
    stream.until("up").await;
    stream.control(HostControl::Resize { rows: 50, cols: 132 }).await;
    stream.until("50 132").await;
    assert_eq!(stream.collect().await.ended.unwrap().outcome, Outcome::Exited { code: 4 });

    let script = "echo up; while read line; do echo \"<$line>\"; done; echo over";
    let start = ExecStart { stdin: true, ..with_tty(script) };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    stream.until("up").await;
    stream.send(Channel::Stdin, b"more\n").await;
    stream.until("<more>").await;
    stream.send(Channel::Stdin, b"").await;
    stream.until("over").await;
    assert_eq!(stream.collect().await.ended.unwrap().outcome, Outcome::Exited { code: 0 });

    let start = ExecStart { stdin: true, ..with_tty("echo up; exec sleep 300") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    stream.until("up").await;
    stream.send(Channel::Stdin, b"\x03").await;
    let ended = stream.collect().await.ended.unwrap();
    assert_eq!(ended.outcome, Outcome::Signaled { signal: 2, core: false, reason: None });
}

#[tokio::test]
async fn a_terminals_input_can_end_in_the_middle_of_a_line() {
    let agent = RunningAgent::start().await;
    let start = ExecStart { stdin: true, ..with_tty("stty -echo; echo up; cat; echo; echo over") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    stream.until("up").await;
    stream.send(Channel::Stdin, b"no newline").await;
    stream.send(Channel::Stdin, b"").await;
    let text = stream.until("over").await;
    assert!(text.contains("no newline"), "{text}");
}

#[tokio::test]
async fn an_agent_sends_heartbeats_on_a_stream() {
    let agent = RunningAgent::start().await;
    let mut stream = Stream::open(&agent, &sh("sleep 300")).await.unwrap();
    let message = stream.next().await.unwrap();
    assert_eq!(message.agent_control().unwrap(), AgentControl::Heartbeat);
}

#[tokio::test]
async fn a_watcher_has_no_effect_and_loses_only_output_that_the_client_has() {
    let agent = RunningAgent::start().await;
    let id: minions_proto::message::ExecId = "watched".parse().unwrap();
    let start = ExecStart {
        id: Some(id.clone()),
        stdin: true,
        on_disconnect: OnDisconnect::Kill,
        ..sh("echo one; read x; echo two; read x; seq 200000; read x; exit 6")
    };
    let mut client = Stream::open(&agent, &start).await.unwrap();
    client.until("one").await;
    let attach = |role| ExecAttach { id: id.clone(), stdout: Some(0), stderr: None, role };
    // A snapshot ends at the current end of the output, and the program runs on.
    let all = Stream::open(&agent, &attach(Role::Snapshot)).await.unwrap().collect().await;
    assert_eq!((all.stdout, all.ended), (b"one\n".to_vec(), None));
    let mut watcher = Stream::open(&agent, &attach(Role::Watch)).await.unwrap();
    assert_eq!(watcher.output().await, "one\n");
    // A watcher's messages have no effect.
    watcher.control(HostControl::Signal { signal: "KILL".parse().unwrap() }).await;
    watcher.send(Channel::Stdin, b"no\n").await;
    watcher.control(HostControl::Leave).await;
    client.send(Channel::Stdin, b"yes\n").await;
    client.until("two").await;
    client.send(Channel::Stdin, b"\n\n").await;
    let all = client.collect().await;
    assert_eq!(all.ended.unwrap().outcome, Outcome::Exited { code: 6 });
    // A late watcher gets the output that is kept, and the size of the gap.
    let all = Stream::open(&agent, &attach(Role::Watch)).await.unwrap().collect().await;
    let expected: String = ["one\n", "two\n"]
        .into_iter()
        .map(str::to_owned)
        .chain((1..=200_000).map(|n| format!("{n}\n")))
        .collect();
    assert_eq!(all.lost + all.stdout.len() as u64, expected.len() as u64);
    assert!(all.lost > 0 && expected.as_bytes().ends_with(&all.stdout));
}

#[tokio::test]
async fn after_a_stream_has_ended_its_connection_takes_requests_and_late_messages_are_ignored() {
    let agent = RunningAgent::start().await;
    let mut stream = Stream::open(&agent, &sh("echo one")).await.unwrap();
    for command in ["echo two", "exit 3", "echo four"] {
        while let Some(message) = stream.next().await {
            if message.channel == Channel::Control
                && matches!(message.agent_control(), Ok(AgentControl::Exit(_)))
            {
                break;
            }
        }
        // Sent by a host that has not read the last message yet.
        stream.send(Channel::Stdin, b"late input").await;
        stream.control(HostControl::Ack { stdout: 4, stderr: 0 }).await;
        let health = stream.call(&HealthCheck::default()).await;
        let features = health.agent.unwrap().features;
        assert!(features.supports(Feature::Reuse), "{features:?}");
        stream.attached = stream.call(&sh(command)).await;
    }
    let all = stream.collect().await;
    assert_eq!((&all.stdout[..], all.refusals.len()), (&b"four\n"[..], 0));
    assert_eq!(all.ended.unwrap().outcome, Outcome::Exited { code: 0 });
}

#[tokio::test]
async fn a_host_that_waits_for_the_end_of_the_connection_gets_it() {
    let agent = RunningAgent::start().await;
    let mut stream = Stream::open(&agent, &sh("exit 3")).await.unwrap();
    let mut last = None;
    while let Some(message) = stream.next().await {
        let is_exit = matches!(message.agent_control(), Ok(AgentControl::Exit(_)));
        last = Some(is_exit);
        if is_exit {
            // A `leave` that crosses the last message.
            stream.control(HostControl::Leave).await;
        }
    }
    assert_eq!(last, Some(true));
}
