//! Steps of time at whose ends the probes of all VMs start together.

use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

/// Length of a time step. Probes that are due within one step start together at its end, so that the VMs of a host
/// share wake-ups.
const STEP: Duration = Duration::from_millis(100);

/// Returns the end of the step that contains an instant. The steps of all VMs start together.
pub(super) fn at_step(instant: Instant) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let into = instant.saturating_duration_since(*START).as_nanos() % STEP.as_nanos();
    let left = (STEP.as_nanos() - into) % STEP.as_nanos();
    instant + Duration::from_nanos(u64::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_within_a_step_is_moved_to_its_end() {
        let first = at_step(Instant::now() + STEP);
        assert_eq!(at_step(first), first);
        for ms in [1, 50, 99, 100] {
            assert_eq!(at_step(first + Duration::from_millis(ms)), first + STEP, "{ms} ms");
        }
        assert_eq!(at_step(first + Duration::from_nanos(1)), first + STEP);
    }
}
