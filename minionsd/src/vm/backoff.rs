//! Pauses between attempts to reach a VM that does not answer.

use std::time::Duration;

/// Longest pause after a failed probe. This limit stays constant for [`BACKOFF_STEADY`] probes and grows after that: an
/// agent that was killed listens again within half a second, and must be noticed soon after.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_STEADY: u32 = 6;
const BACKOFF_FACTOR: f64 = 1.6;
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Returns the pause after `failures` in a row; zero without a failure. `jitter` is a random number from 0 to 1.
pub(crate) fn backoff(failures: u32, jitter: f64) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let growth = failures.saturating_sub(BACKOFF_STEADY);
    let exponent = i32::try_from(growth).unwrap_or(i32::MAX).min(32);
    let grown = BACKOFF_FIRST.mul_f64(BACKOFF_FACTOR.powi(exponent)).min(BACKOFF_MAX);
    // Full jitter, with a minimum: a probe costs the VMM a connection.
    grown.mul_f64(jitter).max(BACKOFF_FIRST / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_stays_constant_for_the_first_half_second() {
        let pauses = (1..=BACKOFF_STEADY).map(|failures| backoff(failures, 1.0));
        assert!(pauses.clone().all(|pause| pause == BACKOFF_FIRST));
        assert!(pauses.sum::<Duration>() >= Duration::from_millis(500));
        assert!(backoff(BACKOFF_STEADY + 1, 1.0) > BACKOFF_FIRST);
    }
}
