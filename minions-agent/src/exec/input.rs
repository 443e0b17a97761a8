//! A program's input: received from the client, and not yet written to the program.

use std::collections::VecDeque;

/// Input on its way to the program.
#[derive(Debug, Default)]
pub(super) struct InputBuffer {
    pub(super) bytes: VecDeque<u8>,
    /// Offset of the next byte to arrive.
    pub(super) arrived: u64,
    /// True once the input has ended.
    pub(super) closed: bool,
    /// True if the program reads no input, or no longer; further input is accepted and dropped.
    pub(super) refused: bool,
}

impl InputBuffer {
    /// Returns the offset of the next byte that the program takes.
    pub(super) fn taken(&self) -> u64 {
        self.arrived - self.bytes.len() as u64
    }

    /// Returns the bytes that wait for the program.
    pub(super) fn waiting(&self) -> (&[u8], &[u8]) {
        self.bytes.as_slices()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Removes `len` bytes that the program has taken.
    pub(super) fn take(&mut self, len: usize) {
        self.bytes.drain(..len);
    }

    /// Drops the waiting input, and all that follows: the program reads no more.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
        self.bytes = VecDeque::new();
    }
}
