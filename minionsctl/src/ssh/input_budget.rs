//! Limit on received data that programs have not taken, for all channels of a connection.
//!
//! The SSH library announces room for more data on a channel when it passes data on, not when the program has taken
//! it. Waiting for the program at that point would stop the whole connection, including the program's output. So
//! received data is kept, up to [`INPUT_BUDGET`]; beyond it, the connection is not read until programs take data.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Maximum number of received bytes, on all channels, that programs have not taken. Beyond it, the connection is not
/// read. One read can exceed it by a packet of 32 KiB.
pub(super) const INPUT_BUDGET: usize = 16 * 1024 * 1024;

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
    /// The budget is used up, and the client has ended, so its remaining data is irrelevant.
    End,
}

impl InputBudget {
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        lock(&self.state).used
    }

    /// Waits for room, or for the end of the client.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<ReadPermission> {
        let mut state = lock(&self.state);
        if state.used < INPUT_BUDGET {
            return Poll::Ready(ReadPermission::Read);
        }
        if state.hung_up {
            return Poll::Ready(ReadPermission::End);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
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
