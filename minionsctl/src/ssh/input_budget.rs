//! Limit on received data that programs have not taken, for all channels of a connection.
//!
//! The SSH library announces room for more data on a channel when it passes data on, not when the program has taken
//! it. Waiting for the program at that point would stop the whole connection, including the program's output. So
//! received data is kept, up to [`INPUT_BUDGET`].
//!
//! Beyond it, the connection is still read: the client's messages about its room for output, and the data of other
//! channels, follow the data that programs have not taken. Instead, all channels get windows of only [`SMALL_WINDOW`]
//! bytes, and reading becomes slower. The library has one window size for all channels, so a larger one for channels whose
//! programs read would also be used by those whose programs do not.
//!
//! ```text
//!  0 ── windows of 512 KiB ── INPUT_BUDGET ── windows of 16 bytes, slower and slower ── MAX_INPUT: a channel is ended
//! ```
//!
//! The windows of all channels together fit between the two limits. Only the small windows of a program that does not
//! read for many hours lead to the second one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

/// Number of received bytes, on all channels, that programs have not taken, beyond which the client is slowed down.
pub(super) const INPUT_BUDGET: usize = 16 * 1024 * 1024;

/// Regular window of a channel, in bytes. The client is on this host, so a larger one is not faster.
pub(super) const WINDOW: u32 = 512 * 1024;

/// Maximum number of received bytes that programs have not taken: the budget, and a window for each of 64 channels.
pub(super) const MAX_INPUT: usize = INPUT_BUDGET + 64 * WINDOW as usize;

/// Message about a channel that was ended.
pub(super) const TOO_MUCH_INPUT: &str = "a channel was closed: the programs of this connection left 48 MiB of input \
    unread; use a connection of its own for a program that does not read its input (ssh -S none)";

/// Window of a channel while the budget is used up, in bytes. The library announces a new window when less than half of
/// the last one is left, so that a client can always send some data and get a larger window later.
const SMALL_WINDOW: u32 = 16;

/// Bytes beyond the budget for which each read of the connection waits a millisecond.
const BYTES_PER_MILLISECOND: usize = 512 * 1024;

/// Number of received bytes that programs have not taken.
#[derive(Debug, Default)]
pub(super) struct InputBudget {
    state: Mutex<BudgetState>,
}

#[derive(Debug, Default)]
struct BudgetState {
    used: usize,
    reader: Option<Waker>,
    hung_up: bool,
}

/// Permission to read the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadPermission {
    /// The budget has room for more input.
    Read,
    /// The budget is used up: read after this time, or after programs have taken input.
    After(Duration),
    /// The budget is used up, and the client has ended, so its remaining data is irrelevant.
    End,
}

impl InputBudget {
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        lock(&self.state).used
    }

    /// Returns whether the connection may be read. Wakes the task when programs take input, and at the end of the client.
    pub(super) fn permission(&self, context: &Context<'_>) -> ReadPermission {
        let mut state = lock(&self.state);
        let Some(beyond) = state.used.checked_sub(INPUT_BUDGET) else {
            return ReadPermission::Read;
        };
        if state.hung_up {
            return ReadPermission::End;
        }
        state.reader = Some(context.waker().clone());
        let milliseconds = 1 + beyond / BYTES_PER_MILLISECOND;
        ReadPermission::After(Duration::from_millis(milliseconds as u64))
    }

    /// Returns the window for the channels.
    pub(super) fn window(&self) -> u32 {
        if lock(&self.state).used >= INPUT_BUDGET { SMALL_WINDOW } else { WINDOW }
    }

    /// Reports whether a channel must be ended.
    pub(super) fn is_exceeded(&self) -> bool {
        lock(&self.state).used > MAX_INPUT
    }

    /// Records that the client has ended.
    pub(super) fn hang_up(&self) {
        let mut state = lock(&self.state);
        state.hung_up = true;
        wake(&mut state);
    }

    pub(super) fn take(&self, bytes: usize) {
        lock(&self.state).used += bytes;
    }

    pub(super) fn give_back(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.used -= bytes;
        wake(&mut state);
    }
}

fn wake(state: &mut BudgetState) {
    if let Some(reader) = state.reader.take() {
        reader.wake();
    }
}

/// Locks a state that no panic can leave inconsistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
