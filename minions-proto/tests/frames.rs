//! Properties of frames and messages under arbitrary chunking and arbitrary bytes.

use minions_proto::announcement::{Announcement, MAX_ANNOUNCEMENT_LEN};
use minions_proto::frame::{Decoder, FrameError, MAX_FRAME_LEN, PREFIX_LEN, encode};
use minions_proto::handshake::{parse_connect, parse_ok};
use minions_proto::message::{ExecReply, Health, Status, decode_reply};
use minions_proto::{AgentPort, Request};
use proptest::collection::vec;
use proptest::prelude::*;

/// Bytes that a decoder may hold beyond those that it was given: its read-ahead, doubled by the
/// growth of `Vec`.
const SLACK: usize = 160 * 1024;

fn drain(decoder: &mut Decoder, frames: &mut Vec<Vec<u8>>) -> Result<(), FrameError> {
    loop {
        match decoder.next_frame() {
            Ok(Some(payload)) => frames.push(payload.to_vec()),
            Ok(None) => return Ok(()),
            Err(FrameError::Empty) => {}
            Err(error) => return Err(error),
        }
    }
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_frames(
        messages in vec(".{0,300}", 1..8),
        cuts in vec(1_usize..64, 1..64),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap()).collect();
        let (mut decoder, mut frames, mut at) = (Decoder::new(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            if at == stream.len() { break }
            let end = stream.len().min(at + cut);
            decoder.extend(&stream[at..end]);
            at = end;
            drain(&mut decoder, &mut frames).unwrap();
        }
        let decoded: Vec<String> =
            frames.iter().map(|f| serde_json::from_slice(f).unwrap()).collect();
        prop_assert_eq!(decoded, messages);
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn junk_never_panics_or_exceeds_the_limit(chunks in vec(vec(any::<u8>(), 0..512), 0..32)) {
        let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
        for chunk in &chunks {
            decoder.read_buffer().extend_from_slice(chunk);
            let end = drain(&mut decoder, &mut frames);
            prop_assert!(decoder.capacity() <= 32 * 512 + SLACK);
            if end.is_err() { break }
        }
    }

    #[test]
    fn a_length_prefix_alone_reserves_little_memory(
        // Of all numbers, only 1 in 4000 is a valid length.
        len in prop_oneof![any::<u32>(), 0..=2 * u32::try_from(MAX_FRAME_LEN).unwrap()],
    ) {
        let mut decoder = Decoder::new();
        decoder.extend(&len.to_be_bytes());
        let verdict = decoder.next_frame();
        decoder.read_buffer();
        prop_assert!(decoder.capacity() <= SLACK);
        match len as usize {
            0 => prop_assert_eq!(verdict, Err(FrameError::Empty)),
            1..=MAX_FRAME_LEN => prop_assert_eq!(verdict, Ok(None)),
            len => prop_assert_eq!(verdict, Err(FrameError::TooLong { len })),
        }
    }

    #[test]
    fn junk_messages_do_not_panic(payload in vec(any::<u8>(), 0..256)) {
        let _ = Request::decode(&payload);
        let _ = decode_reply::<Health>(&payload);
        let _ = decode_reply::<ExecReply>(&payload);
        let _ = decode_reply::<Status>(&payload);
    }

    #[test]
    fn almost_json_is_no_panic(payload in r#"\{"(type|status)":"(exec|ok|error|write_file)"(,"(command|args|mode|path|exit_code)":(-?[0-9]{1,30}|"[a-z\\]*"|\[\]|null)){0,4}\}?"#) {
        let _ = Request::decode(payload.as_bytes());
        let _ = decode_reply::<ExecReply>(payload.as_bytes());
    }

    #[test]
    fn an_ok_line_is_ok_space_digits(line in vec(any::<u8>(), 0..40)) {
        let shape = line.len() > 3 && line.starts_with(b"OK ") && line[3..].iter().all(u8::is_ascii_digit);
        prop_assert_eq!(parse_ok(&line).is_ok(), shape);
    }

    #[test]
    fn every_port_can_be_asked_for(port in any::<u32>()) {
        let line = minions_proto::handshake::connect_line(port);
        prop_assert_eq!(parse_connect(line.trim_end().as_bytes()), Ok(port));
    }
}

#[test]
fn the_largest_frame_passes_and_one_byte_more_does_not() {
    let mut decoder = Decoder::new();
    decoder.extend(&u32::try_from(MAX_FRAME_LEN).unwrap().to_be_bytes());
    decoder.extend(&vec![b'x'; MAX_FRAME_LEN]);
    assert_eq!(decoder.next_frame().unwrap().unwrap().len(), MAX_FRAME_LEN);
    decoder.extend(&(u32::try_from(MAX_FRAME_LEN).unwrap() + 1).to_be_bytes());
    assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong { .. })));
}

#[test]
fn decoding_continues_after_an_empty_frame() {
    let mut decoder = Decoder::new();
    decoder.extend(&[0; PREFIX_LEN]);
    decoder.extend(&encode("next").unwrap());
    assert_eq!(decoder.next_frame(), Err(FrameError::Empty));
    assert_eq!(decoder.next_frame().unwrap().unwrap().as_ref(), b"\"next\"");
}

/// Feeds bytes as `AsyncRead::read_buf` does: fills the room of the buffer, again and again.
fn read(decoder: &mut Decoder, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let buffer = decoder.read_buffer();
        let room = buffer.capacity() - buffer.len();
        let (chunk, rest) = bytes.split_at(room.min(bytes.len()));
        buffer.extend_from_slice(chunk);
        bytes = rest;
    }
}

#[test]
fn an_idle_decoder_releases_its_memory() {
    for len in [1, 70_000, 500_000] {
        let frame = encode(&"x".repeat(len)).unwrap();
        let (mut by_reads, mut by_extend) = (Decoder::new(), Decoder::new());
        read(&mut by_reads, &frame);
        by_extend.extend(&frame);
        for decoder in [&mut by_reads, &mut by_extend] {
            drop(decoder.next_frame().unwrap().unwrap());
            assert_eq!(decoder.capacity(), 0, "after a message of {len} bytes");
        }
    }
}

proptest! {
    #[test]
    fn an_announcement_is_the_same_after_encoding_and_decoding(
        port in 1_u32..u32::MAX,
        protocol in any::<u32>(),
        boot in ".{0,80}",
        instance in ".{0,40}",
    ) {
        let announcement = Announcement {
            port: AgentPort::try_from(i64::from(port)).unwrap(),
            protocol,
            boot_id: boot.into(),
            instance_id: instance.into(),
        };
        let frame = announcement.encode().unwrap();
        let (prefix, payload) = frame.split_first_chunk::<PREFIX_LEN>().unwrap();
        prop_assert_eq!(Announcement::payload_len(*prefix).unwrap(), payload.len());
        prop_assert_eq!(Announcement::decode(payload).unwrap(), announcement);
    }

    #[test]
    fn arbitrary_bytes_as_an_announcement_do_not_panic(payload in vec(any::<u8>(), 0..1100)) {
        let _ = Announcement::decode(&payload);
    }

    #[test]
    fn a_length_of_an_announcement_beyond_its_bounds_is_rejected(len in any::<u32>()) {
        let fits = (1..=MAX_ANNOUNCEMENT_LEN).contains(&usize::try_from(len).unwrap());
        prop_assert_eq!(Announcement::payload_len(len.to_be_bytes()).is_ok(), fits);
    }
}
