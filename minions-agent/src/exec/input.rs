//! A program's input, between its arrival and the program.

use std::collections::VecDeque;

/// Input on its way to the program.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: VecDeque<u8>,
    /// Offset behind the last byte that arrived.
    pub(super) arrived: u64,
    /// Whether there will be no more.
    pub(super) closed: bool,
    /// The program doesn't read any more; what comes is taken and thrown away.
    pub(super) refused: bool,
}

impl Input {
    /// Offset behind the last byte that the program has taken.
    pub(super) fn taken(&self) -> u64 {
        self.arrived - self.bytes.len() as u64
    }

    /// What the program is to take next.
    pub(super) fn waiting(&self) -> (&[u8], &[u8]) {
        self.bytes.as_slices()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The program has taken this much.
    pub(super) fn take(&mut self, len: usize) {
        self.bytes.drain(..len);
    }

    /// The program takes no more.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
        self.bytes = VecDeque::new();
    }
}
