//! Benchmarks of the codec alone: the cost of a message without I/O.
//!
//! `cargo bench -p minions-proto`
#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to report")]

use bytes::{Bytes, BytesMut};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use minions_proto::Request;
use minions_proto::channel::{CHUNK_LEN, Channel, ChannelMessage};
use minions_proto::frame::{Decoder, encode};
use minions_proto::message::{Health, HealthCheck, decode_reply, encode_request};
use serde_json::{Value, json};

fn main() {
    divan::main();
}

/// Health reply of a current agent.
fn health_reply() -> Value {
    json!({
        "status": "ok", "uptime_secs": 17, "hostname": "cloud-hypervisor",
        "agent": {
            "name": "minions-agent", "version": "0.1.0", "protocol": 2,
            "features": ["exec2", "clock", "power"],
            "boot_id": "0a2f3c1e-7a59-4f0a-9d0e-2a1d8b9c4e5f",
            "instance_id": "5e4c9b8d-1a2e-4d9f-a405-9a7e1c3f2a0a"
        },
        "time_unix_ms": 1_764_033_600_000_u64
    })
}

#[divan::bench]
fn encode_health_check() -> Vec<u8> {
    encode_request(black_box(&HealthCheck {})).unwrap()
}

#[divan::bench]
fn decode_health_check(bencher: Bencher<'_, '_>) {
    let frame = encode_request(&HealthCheck {}).unwrap();
    bencher.bench(|| Request::decode(black_box(&frame[4..])).unwrap());
}

#[divan::bench]
fn decode_health_reply(bencher: Bencher<'_, '_>) {
    let frame = encode(&health_reply()).unwrap();
    bencher.bench(|| decode_reply::<Health>(black_box(&frame[4..])).unwrap());
}

/// Decodes a frame from a stream, through the decoder's buffer.
#[divan::bench(args = [32, 1024, CHUNK_LEN])]
fn cut_frame(bencher: Bencher<'_, '_>, len: usize) {
    let frame = encode(&"x".repeat(len - 2)).unwrap();
    let mut decoder = Decoder::new();
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        decoder.read_buffer();
        decoder.extend(black_box(&frame));
        decoder.next_frame().unwrap().unwrap()
    });
}

/// Encodes a chunk of output, and decodes it into a WebSocket message.
#[divan::bench]
fn channel_message(bencher: Bencher<'_, '_>) {
    let message =
        ChannelMessage { channel: Channel::Stdout, payload: Bytes::from(vec![7; CHUNK_LEN]) };
    let (mut decoder, mut wire) = (Decoder::new(), BytesMut::new());
    decoder.expect_alike();
    bencher.counter(BytesCount::new(CHUNK_LEN)).bench_local(|| {
        wire.clear();
        black_box(&message).encode(&mut wire);
        decoder.read_buffer();
        decoder.extend(&wire);
        ChannelMessage::decode(decoder.next_frame().unwrap().unwrap()).unwrap().to_bytes()
    });
}
