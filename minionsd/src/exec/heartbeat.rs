//! Rate limit of the heartbeats that are passed to a client.

use std::time::Duration;
use tokio::time::Instant;

/// Minimum time between two heartbeats that a client gets: half of an agent's interval (5 s), so that every heartbeat
/// of a correct agent passes.
const MIN_INTERVAL: Duration = Duration::from_millis(2_500);

/// Filter that passes an agent's heartbeats to a client at a limited rate.
#[derive(Debug, Default)]
pub(crate) struct HeartbeatFilter {
    last_passed: Option<Instant>,
}

impl HeartbeatFilter {
    /// Reports whether the heartbeat that was just received must be passed on.
    pub(crate) fn pass(&mut self) -> bool {
        let now = Instant::now();
        let passes = self.last_passed.is_none_or(|last| now - last >= MIN_INTERVAL);
        if passes {
            self.last_passed = Some(now);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::HEARTBEAT;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn heartbeats_of_a_correct_agent_pass_and_a_flood_is_coalesced() {
        let mut filter = HeartbeatFilter::default();
        for _ in 0..3 {
            assert!(filter.pass());
            // An agent's timer may be late once and on time the next time.
            advance(HEARTBEAT - Duration::from_secs(1)).await;
        }
        let mut passed = 0;
        for _ in 0..10_000 {
            passed += u32::from(filter.pass());
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(passed, 4, "in ten seconds");
    }
}
