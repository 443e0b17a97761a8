//! Heartbeats of a stream, with paused time.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use minions_agent::{Agent, AgentConfig, Capabilities, Capability};
use minions_proto::channel::{AgentControl, ChannelMessage};
use minions_proto::connection::Connection;
use minions_proto::message::{ExecStart, HEARTBEAT};
use std::time::Duration;
use tokio::io::{AsyncReadExt, duplex};
use tokio::time::{Instant, advance, pause, timeout};

#[tokio::test]
async fn heartbeats_do_not_pile_up_for_a_host_that_does_not_read() {
    let capabilities = Capabilities::from_iter([Capability::Exec]);
    let agent = Agent::new(AgentConfig { capabilities, ..AgentConfig::default() }).unwrap();
    // Room for two heartbeats; after them the agent waits for the host.
    let (host, guest) = duplex(64);
    let served = tokio::spawn(async move { agent.serve(guest).await });
    let start = ExecStart { command: "cat".into(), stdin: true, ..ExecStart::default() };
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut connection = Connection::new(host);
    connection.open(&start, deadline).await.unwrap();
    let (mut host, mut decoder) = connection.into_parts();
    pause();
    for _ in 0..720 {
        advance(HEARTBEAT).await;
    }
    let mut heartbeats = 0;
    while let Ok(read) = timeout(HEARTBEAT / 2, host.read_buf(decoder.read_buffer())).await {
        assert!(read.unwrap() > 0, "the stream has ended");
        while let Some(payload) = decoder.next_frame().unwrap() {
            let control = ChannelMessage::decode(payload).unwrap().agent_control().unwrap();
            assert_eq!(control, AgentControl::Heartbeat);
            heartbeats += 1;
        }
    }
    assert!((2..=4).contains(&heartbeats), "{heartbeats}");
    drop(host);
    tokio::time::resume();
    timeout(Duration::from_secs(30), served).await.expect("an end").unwrap();
}
