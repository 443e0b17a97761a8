//! Rate limit for messages of an agent that carry nothing.
//!
//! Heartbeats, unknown control messages, acks of input that was acknowledged before, gaps of no bytes and
//! output of no bytes cost a host time and tell it nothing new. An agent sends a heartbeat every 5 s and
//! otherwise none of them, so a host ends a stream that has too many. Output and all other messages are
//! never counted, however short: a program may write single bytes as fast as it likes.
//!
//! The limit is a token bucket. It refills while the host does not read, because the agent's heartbeats of
//! that time arrive together when the host reads again.

use crate::channel::AgentControl;
use std::time::{Duration, Instant};

/// Empty messages allowed at the start of a stream.
const INITIAL_ALLOWANCE: u32 = 1_000;

/// Time in which the allowance grows by one message.
const REFILL_INTERVAL: Duration = Duration::from_millis(100);

/// Largest allowance: more than the heartbeats of a day (17,280), for a host that was stopped that long.
const MAX_ALLOWANCE: u32 = 20_000;

/// A stream with more empty messages than any correct agent sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent sends more than 10 messages a second that carry nothing")]
pub struct TooManyEmptyMessages;

/// Counts the empty messages of one stream.
#[derive(Debug, Clone)]
pub struct EmptyMessageLimit {
    /// Empty messages that may follow at once.
    allowance: u32,
    /// Time up to which the allowance has been refilled.
    refilled_at: Instant,
    /// Largest offset of input that the agent has acknowledged.
    input_acked: u64,
}

impl EmptyMessageLimit {
    /// Creates the limit for a stream that begins at `now`, with this many bytes of input
    /// acknowledged.
    #[must_use]
    pub fn new(input_acked: u64, now: Instant) -> Self {
        Self { allowance: INITIAL_ALLOWANCE, refilled_at: now, input_acked }
    }

    /// Counts a message with output of this many bytes.
    ///
    /// # Errors
    ///
    /// [`TooManyEmptyMessages`]: the stream must be ended.
    pub fn count_output(&mut self, len: usize, now: Instant) -> Result<(), TooManyEmptyMessages> {
        if len == 0 { self.count_empty(now) } else { Ok(()) }
    }

    /// Counts a control message.
    ///
    /// # Errors
    ///
    /// As [`count_output`](Self::count_output).
    pub fn count_control(
        &mut self,
        control: &AgentControl,
        now: Instant,
    ) -> Result<(), TooManyEmptyMessages> {
        let is_empty = match control {
            AgentControl::Heartbeat | AgentControl::Unknown => true,
            AgentControl::Ack { stdin } => {
                let is_old = *stdin <= self.input_acked;
                self.input_acked = self.input_acked.max(*stdin);
                is_old
            }
            AgentControl::Gap { from, to, .. } => from == to,
            // The host asked for each error by a message of its own.
            AgentControl::Exit(_) | AgentControl::Error(_) => false,
        };
        if is_empty { self.count_empty(now) } else { Ok(()) }
    }

    /// Counts a message that carries nothing, or nothing that can be read.
    ///
    /// # Errors
    ///
    /// As [`count_output`](Self::count_output).
    pub fn count_empty(&mut self, now: Instant) -> Result<(), TooManyEmptyMessages> {
        self.refill(now);
        self.allowance = self.allowance.checked_sub(1).ok_or(TooManyEmptyMessages)?;
        Ok(())
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        let earned = elapsed.as_millis() / REFILL_INTERVAL.as_millis();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        let allowance = self.allowance.saturating_add(earned);
        if allowance >= MAX_ALLOWANCE {
            (self.allowance, self.refilled_at) = (MAX_ALLOWANCE, now.max(self.refilled_at));
        } else {
            self.allowance = allowance;
            self.refilled_at += REFILL_INTERVAL * earned;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::OutputStream;

    /// Number of empty messages that the limit allows at one moment.
    fn allowed(limit: &mut EmptyMessageLimit, now: Instant) -> u32 {
        let mut count = 0;
        while limit.count_control(&AgentControl::Heartbeat, now).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn a_stream_begins_with_an_allowance_that_refills_ten_times_a_second() {
        let start = Instant::now();
        let mut limit = EmptyMessageLimit::new(0, start);
        assert_eq!(allowed(&mut limit, start), 1_000);
        assert_eq!(allowed(&mut limit, start + Duration::from_millis(99)), 0);
        assert_eq!(allowed(&mut limit, start + Duration::from_millis(150)), 1);
        // The half interval of before is not lost.
        assert_eq!(allowed(&mut limit, start + Duration::from_millis(200)), 1);
        assert_eq!(allowed(&mut limit, start + Duration::from_millis(1_200)), 10);
        // A clock that steps back refills nothing.
        assert_eq!(allowed(&mut limit, start), 0);
    }

    #[test]
    fn the_heartbeats_of_a_day_without_reading_are_allowed_at_once() {
        let start = Instant::now();
        let mut limit = EmptyMessageLimit::new(0, start);
        let day = Duration::from_hours(24);
        assert_eq!(allowed(&mut limit, start + day), 20_000);
        assert_eq!(allowed(&mut limit, start + 2 * day), 20_000);
        assert_eq!(allowed(&mut limit, start + 2 * day), 0);
    }

    #[test]
    fn only_what_carries_nothing_is_counted() {
        let now = Instant::now();
        let gap = |from, to| AgentControl::Gap { stream: OutputStream::Stdout, from, to };
        for empty in [
            AgentControl::Heartbeat,
            AgentControl::Unknown,
            AgentControl::Ack { stdin: 7 },
            AgentControl::Ack { stdin: 6 },
            gap(3, 3),
        ] {
            let mut limit = EmptyMessageLimit::new(7, now);
            let mut counted = (0..5_000).filter(|_| limit.count_control(&empty, now).is_ok());
            assert_eq!(counted.by_ref().count(), 1_000, "{empty:?}");
            assert!(limit.count_output(0, now).is_err());
            // A program that writes byte by byte is not affected.
            assert!((0..5_000).all(|_| limit.count_output(1, now).is_ok()));
            assert!((8..5_000).all(|stdin| {
                limit.count_control(&AgentControl::Ack { stdin }, now).is_ok()
                    && limit.count_control(&gap(0, 1), now).is_ok()
            }));
        }
    }
}
