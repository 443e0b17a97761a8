//! Rate at which the announcements of one VM are passed on: generic cell rate algorithm (ITU-T I.371).

use std::time::Duration;
use tokio::time::Instant;

/// Announcements that are passed on without a pause after a quiet period: a boot and two restarts of the agent.
const BURST: u32 = 3;

/// Time between two announcements after the burst. Equals the time after which a VM that does not answer `CONNECT` is
/// dialled again: a guest that announces in a loop is dialled at most twice as often as a silent one.
const INTERVAL: Duration = Duration::from_secs(10);

/// Rate of one VM.
#[derive(Debug, Default)]
pub(super) struct AnnounceRate {
    /// Theoretical arrival time of the algorithm: each announcement moves it by [`INTERVAL`], and it may be at most
    /// [`BURST`] intervals ahead of the present.
    used_until: Option<Instant>,
}

impl AnnounceRate {
    /// Reports whether an announcement may be passed on now, and counts it if so.
    pub(super) fn permits(&mut self, now: Instant) -> bool {
        let used = self.used_until.map_or(now, |until| until.max(now));
        let until = used + INTERVAL;
        if until > now + BURST * INTERVAL {
            return false;
        }
        self.used_until = Some(until);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_passed_on_and_then_one_for_each_interval() {
        let (mut rate, start) = (AnnounceRate::default(), Instant::now());
        let permitted =
            |rate: &mut AnnounceRate, at| (0..1000).filter(|_| rate.permits(at)).count();
        assert_eq!(permitted(&mut rate, start), 3);
        assert_eq!(permitted(&mut rate, start + INTERVAL - Duration::from_millis(1)), 0);
        assert_eq!(permitted(&mut rate, start + INTERVAL), 1);
        assert_eq!(permitted(&mut rate, start + 100 * INTERVAL), 3);
    }
}
