//! Feeds arbitrary bytes to a host's client: it does not panic, its offsets only grow, and it keeps
//! nothing beyond the pushed input.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use minions_proto::channel::{ChannelMessage, OutputStream};
use minions_proto::exec_client::ExecClient;
use minions_proto::frame::Decoder;
use minions_proto::message::ExecAttached;
use std::time::Instant;

fuzz_target!(|input: (u64, u64, Vec<u8>)| {
    let (offset, window, bytes) = input;
    let attached = ExecAttached {
        id: "fuzz".parse().expect("an id"),
        created: true,
        pid: 1,
        stdout: offset,
        stderr: 0,
        stdin: offset,
        stdin_acked: offset,
        stdin_window: window,
        stdin_closed: false,
        reattach_grace_ms: None,
    };
    let Ok(mut client) = ExecClient::new(&attached, Instant::now()) else { return };
    let mut decoder = Decoder::new();
    decoder.extend(&bytes);
    while let Ok(Some(payload)) = decoder.next_frame() {
        let Ok(message) = ChannelMessage::decode(payload) else { return };
        let _ = message.host_control();
        let before = client.received(OutputStream::Stdout);
        if client.receive(message, Instant::now()).is_err() {
            return;
        }
        assert!(client.received(OutputStream::Stdout) >= before);
        let room = client.input_room().min(64);
        client.push_input(Bytes::from(vec![0; room]));
        while client.next_input().is_some() {}
        let _ = client.ack(true);
        let _ = client.resume(&attached);
    }
});
