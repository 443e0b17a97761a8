//! Data and requests of the SSH client for the program on a channel.
//!
//! The connection adds input, within the [`InputBudget`] and without waiting for the program; the program's task takes
//! it.

use super::input_budget::{InputBudget, lock};
use bytes::Bytes;
use minions_proto::message::Signal;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Signals of one channel that are kept until the program's stream takes them; further ones are dropped.
const MAX_SIGNALS: usize = 16;

/// Event on a channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputEvent {
    /// Input of the program.
    Bytes(Bytes),
    /// End of the input.
    End,
    /// New size of the client's terminal.
    Resized {
        /// Number of lines.
        rows: u16,
        /// Number of characters per line.
        cols: u16,
    },
    /// Signal for the program.
    Signal(Signal),
    /// The client has closed the channel or the connection.
    Closed,
}

/// Input of one channel. The connection adds to it, and the program's task takes from it.
#[derive(Debug)]
pub(super) struct ChannelInput {
    budget: Arc<InputBudget>,
    state: Mutex<InputState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct InputState {
    /// Bytes, which are copied in and out: a shared buffer would stay in memory until all of its parts are sent.
    bytes: VecDeque<u8>,
    signals: VecDeque<Signal>,
    size: Option<(u16, u16)>,
    ended: bool,
    end_taken: bool,
    /// True if the input closes as soon as its end is taken.
    closes_after_end: bool,
    closed: bool,
}

impl InputState {
    fn is_closed(&self) -> bool {
        self.closed || (self.closes_after_end && self.end_taken)
    }
}

impl ChannelInput {
    pub(super) fn new(budget: Arc<InputBudget>) -> Self {
        Self { budget, state: Mutex::default(), changed: Notify::new() }
    }

    /// Adds input of the program.
    pub(super) fn push(&self, bytes: &[u8]) {
        self.change(|state| {
            if !state.closed && !state.ended {
                self.budget.take(bytes.len());
                state.bytes.extend(bytes);
            }
        });
    }

    /// Marks the input as complete.
    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// Records the size of the terminal. Replaces an earlier size that was not taken yet.
    pub(super) fn resize(&self, rows: u16, cols: u16) {
        self.change(|state| state.size = Some((rows, cols)));
    }

    /// Adds a signal.
    pub(super) fn signal(&self, signal: Signal) {
        self.change(|state| {
            if state.signals.len() < MAX_SIGNALS {
                state.signals.push_back(signal);
            }
        });
    }

    /// Closes the input, and discards everything that was not taken.
    pub(super) fn close(&self) {
        self.change(|state| {
            state.closed = true;
            self.budget.give_back(state.bytes.len());
            state.bytes = VecDeque::new();
        });
    }

    /// Closes the input. If its end has arrived, it is closed only after everything was taken: a client that has sent all
    /// input, and has received all output, closes the channel without waiting.
    pub(super) fn close_after_end(&self) {
        let ended = {
            let state = &mut *lock(&self.state);
            state.closes_after_end = true;
            state.ended
        };
        if ended {
            self.changed.notify_one();
        } else {
            self.close();
        }
    }

    /// Discards everything that was not taken, and all later input. The end of the channel is still reported.
    pub(super) fn discard(&self) {
        self.change(|state| {
            (state.ended, state.end_taken) = (true, true);
            self.budget.give_back(state.bytes.len());
            state.bytes = VecDeque::new();
        });
    }

    /// Returns the number of bytes that were not taken.
    pub(super) fn unread(&self) -> usize {
        lock(&self.state).bytes.len()
    }

    /// Reports whether the input is closed.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed()
    }

    /// Waits until the client has closed the channel.
    pub(super) async fn closed(&self) {
        while self.next_control().await != InputEvent::Closed {}
    }

    fn change(&self, change: impl FnOnce(&mut InputState)) {
        change(&mut lock(&self.state));
        self.changed.notify_one();
    }

    /// Waits for the next event, and takes at most `room` bytes. Cancel safe. Only one task may wait.
    pub(super) async fn next(&self, room: usize) -> InputEvent {
        loop {
            if let Some(event) = self.take(room) {
                return event;
            }
            self.changed.notified().await;
        }
    }

    /// Waits for the next event other than input. Input and its end are kept for later. Cancel safe.
    pub(super) async fn next_control(&self) -> InputEvent {
        loop {
            if let Some(event) = self.take_control() {
                return event;
            }
            self.changed.notified().await;
        }
    }

    fn take_control(&self) -> Option<InputEvent> {
        let state = &mut *lock(&self.state);
        if state.is_closed() {
            return Some(InputEvent::Closed);
        }
        if let Some(signal) = state.signals.pop_front() {
            return Some(InputEvent::Signal(signal));
        }
        if let Some((rows, cols)) = state.size.take() {
            return Some(InputEvent::Resized { rows, cols });
        }
        None
    }

    fn take(&self, room: usize) -> Option<InputEvent> {
        if let Some(event) = self.take_control() {
            return Some(event);
        }
        let state = &mut *lock(&self.state);
        if !state.bytes.is_empty() && room > 0 {
            let (first, _) = state.bytes.as_slices();
            let bytes = Bytes::copy_from_slice(&first[..room.min(first.len())]);
            state.bytes.drain(..bytes.len());
            if state.bytes.is_empty() {
                // Frees the memory of a large queue.
                state.bytes = VecDeque::new();
            }
            self.budget.give_back(bytes.len());
            return Some(InputEvent::Bytes(bytes));
        }
        if state.bytes.is_empty() && state.ended && !state.end_taken {
            state.end_taken = true;
            return Some(InputEvent::End);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::input_budget::{INPUT_BUDGET, MAX_INPUT, ReadPermission, WINDOW};
    use super::*;
    use std::task::{Context, Waker};
    use std::time::Duration;

    fn channel() -> (Arc<InputBudget>, ChannelInput) {
        let budget = Arc::new(InputBudget::default());
        (Arc::clone(&budget), ChannelInput::new(budget))
    }

    fn room(budget: &InputBudget) -> ReadPermission {
        budget.permission(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn input_arrives_in_order_and_its_end_comes_last_and_once() {
        let (_, input) = channel();
        input.push(b"abc");
        input.push(b"de");
        input.end();
        input.push(b"after the end");
        let bytes = |text: &'static [u8]| Some(InputEvent::Bytes(Bytes::from_static(text)));
        assert_eq!((input.take(0), input.take_control()), (None, None));
        assert_eq!(input.take(4), bytes(b"abcd"));
        assert_eq!(input.take(4), bytes(b"e"));
        assert_eq!(input.take_control(), None);
        assert_eq!(input.take(4), Some(InputEvent::End));
        assert_eq!(input.take(4), None);
    }

    #[test]
    fn a_close_after_the_end_discards_nothing() {
        let (budget, input) = channel();
        input.push(b"answer");
        input.end();
        input.close_after_end();
        assert!(!input.is_closed());
        assert_eq!(input.take_control(), None);
        let bytes = InputEvent::Bytes(Bytes::from_static(b"answer"));
        assert_eq!(input.take(10), Some(bytes));
        assert_eq!(input.take(10), Some(InputEvent::End));
        assert_eq!((input.take(10), input.is_closed()), (Some(InputEvent::Closed), true));
        // Without the end, the client has left early.
        let (_, input) = channel();
        input.push(b"half");
        input.close_after_end();
        assert_eq!((input.take(10), budget.used()), (Some(InputEvent::Closed), 0));
    }

    #[test]
    fn a_signal_and_the_last_size_do_not_wait_for_the_input() {
        let (_, input) = channel();
        input.push(b"not read by the program");
        (1..40).for_each(|rows| input.resize(rows, 80));
        (0..40).for_each(|_| input.signal(Signal::TERM));
        for _ in 0..MAX_SIGNALS {
            assert_eq!(input.take(0), Some(InputEvent::Signal(Signal::TERM)));
        }
        assert_eq!(input.take(0), Some(InputEvent::Resized { rows: 39, cols: 80 }));
        assert_eq!(input.take(0), None);
    }

    #[test]
    fn the_connection_is_read_slowly_while_the_budget_is_used_up() {
        let (budget, input) = channel();
        let other = ChannelInput::new(Arc::clone(&budget));
        let slow = ReadPermission::After(Duration::from_millis(1));
        input.push(&vec![0; INPUT_BUDGET / 2]);
        assert_eq!(room(&budget), ReadPermission::Read);
        other.push(&vec![0; INPUT_BUDGET / 2]);
        assert_eq!(room(&budget), slow);
        assert!(input.take(1).is_some());
        assert_eq!(room(&budget), ReadPermission::Read);
        input.push(b"x");
        assert_eq!(room(&budget), slow);
        budget.hang_up();
        assert_eq!(room(&budget), ReadPermission::End);
        input.discard();
        input.push(b"discarded");
        assert_eq!((input.take(1), budget.used()), (None, INPUT_BUDGET / 2));
        other.close();
        other.push(b"discarded");
        assert_eq!(room(&budget), ReadPermission::Read);
        assert_eq!(other.take(1), Some(InputEvent::Closed));
        input.close();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn beyond_the_budget_the_windows_are_small_and_the_limit_has_room_for_all_windows() {
        let (budget, input) = channel();
        input.push(&vec![0; INPUT_BUDGET - 1]);
        assert_eq!(budget.window(), WINDOW);
        input.push(b"x");
        // With less than 2 bytes, the library would never announce a window again.
        assert!((2..1024).contains(&budget.window()), "{}", budget.window());
        for _ in 0..64 {
            input.push(&vec![0; WINDOW as usize]);
        }
        assert_eq!((budget.is_exceeded(), input.unread()), (false, MAX_INPUT));
        let ReadPermission::After(pause) = room(&budget) else { panic!("the budget is used up") };
        assert!(pause > Duration::from_millis(1), "{pause:?}");
        input.push(b"x");
        assert!(budget.is_exceeded());
        input.close();
        assert_eq!((budget.is_exceeded(), budget.window()), (false, WINDOW));
    }
}
