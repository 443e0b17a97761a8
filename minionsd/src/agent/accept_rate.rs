//! Rate of the connections that are taken from the listeners of one VM.
//!
//! Programs in the guest decide how many connections there are, and each one costs audit entries. So connections beyond
//! a burst are taken at a fixed rate; the others wait in the guest. This is the generic cell rate algorithm (ITU-T I.371).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Connections that are taken without a pause after a quiet period.
const BURST: u32 = 1_000;

/// Time between two connections after the burst: 50 in a second.
const INTERVAL: Duration = Duration::from_millis(20);

/// Rate of one VM.
#[derive(Debug, Default)]
pub(super) struct AcceptRate {
    /// Time until which all connections so far have used up the rate.
    used_until: Mutex<Option<Instant>>,
}

impl AcceptRate {
    /// Waits until the next connection may be taken.
    ///
    /// A caller that gives up has used its turn, so that callers who always give up do not exceed the rate.
    pub(super) async fn turn(&self) {
        let due = self.next(Instant::now());
        sleep_until(due).await;
    }

    /// Returns the time of the next connection, and counts it.
    fn next(&self, now: Instant) -> Instant {
        let mut used_until = self.used_until.lock().unwrap_or_else(PoisonError::into_inner);
        let until = used_until.map_or(now, |until| until.max(now)) + INTERVAL;
        *used_until = Some(until);
        until.checked_sub(BURST * INTERVAL).map_or(now, |due| due.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_the_others_at_the_rate() {
        let rate = AcceptRate::default();
        let started = Instant::now();
        for _ in 0..BURST {
            rate.turn().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..50 {
            rate.turn().await;
        }
        assert_eq!(started.elapsed(), 50 * INTERVAL);
        tokio::time::sleep(BURST * INTERVAL).await;
        let quiet = Instant::now();
        for _ in 0..BURST {
            rate.turn().await;
        }
        assert_eq!(quiet.elapsed(), Duration::ZERO);
    }
}
