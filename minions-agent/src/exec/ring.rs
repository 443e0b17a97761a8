//! Ring buffer of the newest bytes of one output stream, addressed by their offsets in the stream.
//!
//! ```text
//!   0 ········ start ──────────── acked ──────────── end
//!     lost       kept for           not yet            next byte
//!                late readers       acknowledged
//! ```
//!
//! While a client is attached, or may re-attach, bytes that it lacks are never overwritten: without
//! [`room`](OutputRing::room), the agent stops reading the program's pipe, and the program waits.

use std::collections::VecDeque;

/// Limit of bytes that are kept of one stream. Both streams of 64 programs, the most that run at the same time,
/// use up to 64 MiB.
pub(super) const CAPACITY: usize = 512 * 1024;

/// Newest bytes of an output stream.
#[derive(Debug, Default)]
pub(super) struct OutputRing {
    bytes: VecDeque<u8>,
    start: u64,
    acked: u64,
}

impl OutputRing {
    /// Returns the offset of the oldest byte.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the offset of the next byte to be pushed.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Returns the number of bytes that may be pushed; with `hold`, without overwriting unacknowledged bytes.
    pub(super) fn room(&self, hold: bool) -> usize {
        let held = if hold { self.end() - self.acked.clamp(self.start, self.end()) } else { 0 };
        // Held bytes are part of the kept ones, so there are at most `CAPACITY`.
        CAPACITY - usize::try_from(held).unwrap_or(CAPACITY)
    }

    /// Appends bytes, and drops the oldest beyond the capacity.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let skipped = bytes.len().saturating_sub(CAPACITY);
        let surplus = (self.bytes.len() + bytes.len() - skipped).saturating_sub(CAPACITY);
        self.bytes.drain(..surplus);
        self.start += (surplus + skipped) as u64;
        let needed = self.bytes.len() + bytes.len() - skipped;
        if needed > self.bytes.capacity() {
            let wanted = (2 * self.bytes.capacity()).clamp(needed, CAPACITY);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend(&bytes[skipped..]);
    }

    /// Records that the client has everything before `offset`.
    pub(super) fn acknowledge(&mut self, offset: u64) {
        self.acked = self.acked.max(offset.min(self.end()));
    }

    /// Appends up to `most` of the kept bytes, beginning at `from`, to `out`. Returns their number.
    pub(super) fn copy(&self, from: u64, most: usize, out: &mut impl bytes::BufMut) -> usize {
        let skip = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let (front, back) = self.bytes.as_slices();
        let mut copied = 0;
        for (part, skip) in [(front, skip), (back, skip.saturating_sub(front.len()))] {
            let part = part.get(skip..).unwrap_or_default();
            let part = &part[..part.len().min(most - copied)];
            out.put_slice(part);
            copied += part.len();
        }
        copied
    }

    /// Releases unused memory at the end of the stream.
    pub(super) fn finish(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Drops all bytes. The end offset stays.
    pub(super) fn forget(&mut self) {
        self.start = self.end();
        self.bytes = VecDeque::new();
    }

    /// Returns the allocated memory, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn byte(offset: u64) -> u8 {
        (offset % 251) as u8
    }

    proptest! {
        #[test]
        fn every_offset_returns_the_byte_that_was_pushed_there(
            lens in vec(0_usize..300_000, 1..12), from in any::<prop::sample::Index>(), most in 0_usize..70_000,
        ) {
            let (mut ring, mut offset) = (OutputRing::default(), 0_u64);
            for len in lens {
                let bytes: Vec<u8> = (offset..offset + len as u64).map(byte).collect();
                ring.push(&bytes);
                offset += len as u64;
                prop_assert_eq!(ring.end(), offset);
                prop_assert!(ring.memory() <= CAPACITY);
                prop_assert!(ring.end() - ring.start() == offset.min(CAPACITY as u64));
            }
            let kept = ring.end() - ring.start();
            let from = ring.start() + from.index(usize::try_from(kept).unwrap() + 1) as u64;
            let mut out = Vec::new();
            let copied = ring.copy(from, most, &mut out);
            prop_assert_eq!(copied as u64, (ring.end() - from).min(most as u64));
            let expected: Vec<u8> = (from..from + copied as u64).map(byte).collect();
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn held_bytes_take_room_until_they_are_acknowledged() {
        let mut ring = OutputRing::default();
        ring.push(&vec![0; CAPACITY - 10]);
        assert_eq!((ring.room(true), ring.room(false)), (10, CAPACITY));
        ring.acknowledge(100);
        assert_eq!(ring.room(true), 110);
        // An ack beyond the end acknowledges all that was written.
        ring.acknowledge(u64::MAX);
        assert_eq!(ring.room(true), CAPACITY);
        ring.push(&[1; 20]);
        assert_eq!((ring.start(), ring.room(true)), (10, CAPACITY - 20));
    }
}
