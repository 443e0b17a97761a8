//! Processing rate that all streams of one VM share.
//!
//! A guest decides how many messages its streams send, and each costs the daemon processor time that the
//! other VMs then lack. So each message is charged to its VM, and a stream whose VM has used up its budget
//! waits before it reads on. No output is lost: an agent whose output is not read sends the same bytes later,
//! in fewer and longer messages.
//!
//! The budget is a leaky bucket of work, measured as time. A message of few bytes is charged several times its
//! real cost, one of 64 KiB a part of it: single bytes pass at 50,000 messages a second, bulk output at more
//! than any socket carries.

use minions_proto::channel::CHUNK_LEN;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Charge for a message without payload. It falls linearly to zero at [`CHUNK_LEN`] bytes.
const SHORT_MESSAGE: Duration = Duration::from_micros(20);

/// Charge for [`CHUNK_LEN`] bytes of payload: 8 GB/s.
const FULL_CHUNK: Duration = Duration::from_micros(8);

/// Work that the streams may do without waiting after a quiet time.
const BURST: Duration = Duration::from_millis(20);

/// Unpaid work above which the streams yield to each other after each message.
const BUSY: Duration = Duration::from_millis(10);

/// Shortest wait. A wait that is shorter than the resolution of the runtime's timer costs more than it saves.
const MIN_WAIT: Duration = Duration::from_millis(2);

/// Action that a stream must take before it reads its next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Nothing.
    Continue,
    /// Let other tasks run: without that, the stream that is woken first would use up all of the budget.
    Yield,
    /// Wait: the VM's budget is used up.
    WaitUntil(Instant),
}

/// Budget of one VM.
#[derive(Debug, Default)]
pub(crate) struct StreamPace {
    /// Time at which all work charged so far will have been paid for.
    paid_until: Mutex<Option<Instant>>,
}

impl StreamPace {
    /// Charges a message with `len` bytes of payload that was read at `now`.
    pub(crate) fn charge(&self, len: usize, now: Instant) -> NextStep {
        let charge = charge(len);
        let paid_until = {
            let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
            let until = paid_until.map_or(now, |until| until.max(now)) + charge;
            *paid_until = Some(until);
            until
        };
        let ahead = paid_until.saturating_duration_since(now);
        if ahead > BURST {
            NextStep::WaitUntil(now + (ahead - BURST).max(MIN_WAIT))
        } else if ahead > BUSY {
            NextStep::Yield
        } else {
            NextStep::Continue
        }
    }
}

/// Charge for a message with `len` bytes of payload.
fn charge(len: usize) -> Duration {
    let filled = len as f64 / CHUNK_LEN as f64;
    SHORT_MESSAGE.mul_f64((1.0 - filled).max(0.0)) + FULL_CHUNK.mul_f64(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Returns how many messages of `len` bytes each of `streams` streams process in a second of paused time.
    fn processed(pace: &StreamPace, streams: usize, len: usize) -> Vec<u32> {
        let start = Instant::now();
        let end = start + Duration::from_secs(1);
        let mut counts = vec![0; streams];
        // Time at which each stream may read on, and its place among those that may. Reading takes no time here.
        let mut queue: BTreeSet<_> = (0..streams).map(|stream| (start, stream, stream)).collect();
        let mut places = streams..;
        while let Some((mut now, place, stream)) = queue.pop_first()
            && now < end
        {
            let mut place = place;
            loop {
                counts[stream] += 1;
                match pace.charge(len, now) {
                    NextStep::Continue => continue,
                    NextStep::Yield => {}
                    NextStep::WaitUntil(time) => now = time,
                }
                place = places.next().unwrap_or(place);
                break;
            }
            queue.insert((now, place, stream));
        }
        counts
    }

    #[test]
    fn short_messages_share_one_limit_for_any_number_of_streams() {
        for streams in [1, 4, 64] {
            let counts = processed(&StreamPace::default(), streams, 1);
            let total: u32 = counts.iter().sum();
            // 50,000, and the initial burst.
            assert!((50_900..=51_100).contains(&total), "{streams} streams: {total}");
        }
    }

    #[test]
    fn streams_of_one_vm_get_similar_shares() {
        for streams in [2, 64] {
            let counts = processed(&StreamPace::default(), streams, 1);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*most <= 2 * *least, "{counts:?}");
        }
    }

    #[test]
    fn bulk_output_is_not_slowed_below_8_gb_per_second() {
        let count = processed(&StreamPace::default(), 4, CHUNK_LEN + 1).iter().sum::<u32>();
        let rate = u64::from(count) * CHUNK_LEN as u64;
        assert!(rate > 8_000_000_000, "{rate} bytes a second");
        // The longest message is charged for all of its bytes.
        assert_eq!(charge(16 * CHUNK_LEN), 16 * FULL_CHUNK);
    }

    #[test]
    fn one_vm_does_not_wait_for_another() {
        let (busy, quiet) = (StreamPace::default(), StreamPace::default());
        processed(&busy, 4, 1);
        assert_ne!(busy.charge(1, Instant::now()), NextStep::Continue);
        assert_eq!(quiet.charge(1, Instant::now()), NextStep::Continue);
    }
}
