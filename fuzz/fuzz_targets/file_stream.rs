//! Feeds arbitrary bytes to the decoders of file operations, forwards and listeners: no panic, no line beyond the
//! limit, and each decoded line is the same after encoding and decoding it again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use minions_proto::channel::ChannelMessage;
use minions_proto::file_stream::{
    DirectoryEntry, FileEvent, FileFailure, FileHeader, LineDecoder, MAX_LINE_LEN,
};
use minions_proto::forward::{ForwardHostControl, decode_control};
use minions_proto::forward_client::{ForwardClient, ForwardEvent};
use minions_proto::forward_listener::{ListenerClient, ListenerEvent, ListenerHostControl};
use minions_proto::frame::Decoder;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::time::Instant;

fn check<T: DeserializeOwned + Serialize + PartialEq + Debug>(line: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(line).ok()?;
    let json = serde_json::to_vec(&value).expect("decoded from JSON");
    assert_eq!(serde_json::from_slice::<T>(&json).expect("just encoded"), value);
    Some(value)
}

fn lines(bytes: &[u8], chunk: usize) {
    let mut lines = LineDecoder::default();
    for part in bytes.chunks(chunk) {
        lines.extend(part);
        while let Ok(Some(line)) = lines.next_line() {
            assert!(line.len() <= MAX_LINE_LEN);
            let _ = check::<FileHeader>(&line);
            let _ = check::<FileEvent>(&line);
            let _ = check::<FileFailure>(&line);
            if let Some(entry) = check::<DirectoryEntry>(&line) {
                let _ = entry.name_bytes();
            }
        }
    }
}

fn forward(bytes: &[u8]) {
    let now = Instant::now();
    let mut client = ForwardClient::new(now);
    let mut decoder = Decoder::new();
    decoder.extend(bytes);
    while let Ok(Some(payload)) = decoder.next_frame() {
        let Ok(message) = ChannelMessage::decode(payload) else { return };
        let _ = decode_control::<ForwardHostControl>(&message);
        match client.receive(message, now) {
            Ok(ForwardEvent::Closed(_)) => {
                let heartbeat = ForwardClient::heartbeat();
                assert!(client.receive(heartbeat, now).is_err());
                return;
            }
            Ok(_) => {}
            Err(_) => return,
        }
        let _ = client.send(&mut Bytes::from_static(b"x"));
    }
}

fn listener(bytes: &[u8]) {
    let now = Instant::now();
    let mut client = ListenerClient::new(now);
    let mut decoder = Decoder::new();
    decoder.extend(bytes);
    while let Ok(Some(payload)) = decoder.next_frame() {
        let Ok(message) = ChannelMessage::decode(payload) else { return };
        let _ = decode_control::<ListenerHostControl>(&message);
        match client.receive(&message, now) {
            Ok(ListenerEvent::Closed(_)) => {
                assert!(client.receive(&ListenerClient::heartbeat(), now).is_err());
                return;
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (chunk, bytes) = input;
    lines(&bytes, usize::from(chunk) + 1);
    forward(&bytes);
    listener(&bytes);
});
