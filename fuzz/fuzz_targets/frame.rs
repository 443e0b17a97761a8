//! Feeds arbitrary bytes in arbitrary chunks: no panic, no memory beyond the received bytes and the
//! read-ahead, and the same frames as without chunking.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minions_proto::frame::{Decoder, FrameError, MAX_FRAME_LEN};

const SLACK: usize = 160 * 1024;

fn frames(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
    let (mut decoder, mut frames, mut fed) = (Decoder::new(), Vec::new(), 0);
    for chunk in chunks {
        decoder.read_buffer().extend_from_slice(chunk);
        fed += chunk.len();
        assert!(decoder.capacity() <= 2 * fed + SLACK);
        loop {
            match decoder.next_frame() {
                Ok(Some(payload)) => {
                    assert!((1..=MAX_FRAME_LEN).contains(&payload.len()));
                    frames.push(payload.to_vec());
                }
                Ok(None) => break,
                Err(FrameError::Empty) => {}
                Err(FrameError::TooLong { .. }) => return frames,
            }
        }
    }
    frames
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let chunks: Vec<&[u8]> = bytes.chunks(usize::from(step).max(1)).collect();
    assert_eq!(frames(&chunks), frames(&[bytes]));
});
