//! Collected output: the beginning and end of a stream within a fixed budget, kept while the program
//! writes. The base `exec` reply and the daemon's collected exec return it.
//!
//! ```text
//!  written:  ████████████████████░░░░░░░░░░░░░░░░░░░░░░░████████████████████
//!            └──── head ────────┘└─ counted, not kept ─┘└────── tail ──────┘
//! ```
//!
//! The head shows how the program began, the tail how it ended.

use std::collections::VecDeque;

/// Buffer for the beginning and end of a stream.
#[derive(Debug)]
pub struct HeadTail {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Largest number of bytes kept of each end.
    keep: usize,
    total: u64,
}

/// Kept parts of a complete stream.
#[derive(Debug, PartialEq, Eq)]
pub struct KeptOutput {
    /// Beginning of the stream; all of it if nothing is missing.
    pub head: Vec<u8>,
    /// End of the stream; empty if nothing is missing.
    pub tail: Vec<u8>,
    /// Number of bytes missing between head and tail.
    pub missing: u64,
}

impl HeadTail {
    /// Creates a buffer that keeps at most `keep` bytes of each end.
    #[must_use]
    pub fn keeping(keep: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), keep, total: 0 }
    }

    /// Returns the number of bytes written, kept or not.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Appends the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(self.keep - self.head.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.keep)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.keep);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    /// Returns the kept parts. A character that the gap splits is dropped entirely.
    #[must_use]
    pub fn finish(mut self) -> KeptOutput {
        let kept = (self.head.len() + self.tail.len()) as u64;
        if kept == self.total {
            self.head.extend(self.tail);
            return KeptOutput { head: self.head, tail: Vec::new(), missing: 0 };
        }
        self.head.truncate(whole_prefix_len(&self.head));
        let mut tail = Vec::from(self.tail);
        tail.drain(..torn_start_len(&tail));
        let missing = self.total - (self.head.len() + tail.len()) as u64;
        KeptOutput { head: self.head, tail, missing }
    }
}

/// Returns the length of `bytes` without an incomplete UTF-8 character at the end.
#[must_use]
pub fn whole_prefix_len(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(_) => bytes.len() - begun_len(bytes),
    }
}

/// Returns the length of the incomplete UTF-8 character at the end of `bytes`, or 0.
fn begun_len(bytes: &[u8]) -> usize {
    let len = bytes.iter().rev().take_while(|byte| is_continuation(**byte)).take(3).count() + 1;
    let Some(lead) = bytes.len().checked_sub(len).and_then(|at| bytes.get(at)) else { return 0 };
    let wanted = match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 0,
    };
    if len < wanted { len } else { 0 }
}

/// Returns the number of UTF-8 continuation bytes at the start of `bytes`, at most 3.
fn torn_start_len(bytes: &[u8]) -> usize {
    bytes.iter().take(3).take_while(|byte| is_continuation(**byte)).count()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const KEEP: usize = 64;

    fn captured(stream: &[u8], cuts: &[usize]) -> KeptOutput {
        let (mut buffer, mut at) = (HeadTail::keeping(KEEP), 0);
        for cut in cuts.iter().cycle() {
            let end = stream.len().min(at + cut);
            buffer.push(&stream[at..end]);
            assert_eq!(buffer.total(), end as u64);
            assert!(buffer.head.len() <= KEEP && buffer.tail.len() <= KEEP);
            assert!(buffer.tail.capacity() <= 2 * KEEP, "{}", buffer.tail.capacity());
            at = end;
            if at == stream.len() {
                break;
            }
        }
        buffer.finish()
    }

    proptest! {
        #[test]
        fn any_chunking_keeps_the_same_bytes(
            stream in vec(any::<u8>(), 0..400),
            cuts in vec(1_usize..200, 1..20),
        ) {
            let kept = captured(&stream, &cuts);
            prop_assert_eq!(&kept, &captured(&stream, &[usize::MAX / 2]));
            let missing = usize::try_from(kept.missing).unwrap();
            prop_assert_eq!(kept.head.len() + missing + kept.tail.len(), stream.len());
            prop_assert!(stream.starts_with(&kept.head) && stream.ends_with(&kept.tail));
        }

        #[test]
        fn text_remains_valid_utf8_around_the_gap(stream in ".{100,300}", cuts in vec(1_usize..50, 1..20)) {
            let kept = captured(stream.as_bytes(), &cuts);
            prop_assert!(std::str::from_utf8(&kept.head).is_ok());
            prop_assert!(std::str::from_utf8(&kept.tail).is_ok());
        }
    }

    #[test]
    fn a_stream_within_the_budget_has_no_gap() {
        let stream = vec![b'x'; 2 * KEEP];
        assert_eq!(
            captured(&stream, &[7]),
            KeptOutput { head: stream, tail: Vec::new(), missing: 0 }
        );
        let longer = captured(&[b'x'; 2 * KEEP + 1], &[7]);
        assert_eq!((longer.head.len(), longer.missing, longer.tail.len()), (KEEP, 1, KEEP));
    }
}
