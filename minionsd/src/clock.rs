//! Clock offsets of guests, and correction of clocks that are off by too much.

use crate::agent::AgentConnection;
use crate::config::SMALLEST_CLOCK_LIMIT;
use minions_api::VmName;
use minions_proto::message::{Feature, Health, SetClock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Minimum time between two attempts on one guest, which may undo the change or refuse it.
const GAP: Duration = Duration::from_mins(1);

/// Deadline for setting a clock: the agent makes one system call.
const DEADLINE: Duration = Duration::from_secs(1);

/// Returns how far a guest's clock is ahead of the host's, in milliseconds; negative if it is late. The guest read
/// its clock (`theirs`) between `asked` and `answered`, so the error is at most half of that interval.
pub(crate) fn offset_ms(theirs: u64, asked: SystemTime, answered: SystemTime) -> i64 {
    let middle = (i128::from(unix_ms(asked)) + i128::from(unix_ms(answered))) / 2;
    let ahead = i128::from(theirs) - middle;
    i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
}

/// Returns the time in milliseconds since 1970; 0 for earlier times.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Keeps the clock of one guest within a limit of the host's clock.
#[derive(Debug, Default)]
pub(crate) struct ClockKeeper {
    /// Time of the last attempt.
    tried: Option<Instant>,
}

impl ClockKeeper {
    /// Sets the guest's clock if it is off by more than `limit` and the last attempt is at least [`GAP`] ago. `health`
    /// is the answer to a request that was sent at `asked` and has just been answered. Without a limit, the clock is never
    /// set. The limit is looked up only for an offset that may exceed it, because this runs after each probe.
    ///
    /// Not cancel safe: if the future is dropped, the connection cannot be used any more.
    pub(crate) async fn keep(
        &mut self,
        vm: &VmName,
        connection: &mut AgentConnection,
        health: &Health,
        asked: SystemTime,
        limit: impl FnOnce() -> Option<Duration>,
    ) {
        let Some(offset) = self.offset_to_correct(health, asked, SystemTime::now(), limit) else {
            return;
        };
        self.tried = Some(Instant::now());
        let call = SetClock { time_unix_ms: unix_ms(SystemTime::now()) };
        match connection.call(&call, Instant::now() + DEADLINE).await {
            Ok(set) => {
                tracing::info!(%vm, offset_ms = offset, step_ms = set.step_ms, "clock set");
            }
            Err(error) => {
                tracing::warn!(%vm, offset_ms = offset, %error, "clock not set");
            }
        }
    }

    /// Returns the offset if it must be corrected now.
    fn offset_to_correct(
        &self,
        health: &Health,
        asked: SystemTime,
        answered: SystemTime,
        limit: impl FnOnce() -> Option<Duration>,
    ) -> Option<i64> {
        let offset = offset_ms(health.time_unix_ms?, asked, answered);
        // What the exchange itself took says nothing about the clock.
        let error = unix_ms(answered).saturating_sub(unix_ms(asked)) / 2;
        let certain = Duration::from_millis(offset.unsigned_abs().saturating_sub(error));
        let waited = self.tried.is_none_or(|tried| tried.elapsed() >= GAP);
        // A quiesced guest refuses the call.
        let supported =
            health.quiesced.is_none() && health.agent.as_ref()?.supports(Feature::Clock);
        let exceeds =
            certain > SMALLEST_CLOCK_LIMIT && limit().is_some_and(|limit| certain > limit);
        (exceeds && supported && waited).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::AgentInfo;
    use std::cell::Cell;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn health(time_unix_ms: u64, features: &[Feature]) -> Health {
        let agent = AgentInfo {
            name: "a".into(),
            version: "1".into(),
            protocol: 2,
            features: features.iter().copied().collect(),
            boot_id: "b".into(),
            instance_id: "i".into(),
            allowed: None,
            generation: None,
            parent_instance_id: None,
            probe_count: None,
            restore: None,
        };
        let time_unix_ms = Some(time_unix_ms);
        Health {
            uptime_secs: 1,
            hostname: "h".into(),
            agent: Some(agent),
            time_unix_ms,
            quiesced: None,
            network_changes: None,
        }
    }

    #[test]
    fn an_offset_is_relative_to_the_middle_of_the_exchange() {
        assert_eq!(offset_ms(10_000, at(9_000), at(9_100)), 950);
        assert_eq!(offset_ms(0, at(5_000), at(5_000)), -5_000);
        assert_eq!(offset_ms(u64::MAX, at(0), at(0)), i64::MAX);
    }

    #[test]
    fn a_clock_is_set_only_if_its_offset_exceeds_limit_and_measurement_error() {
        let (keeper, looks) = (ClockKeeper::default(), Cell::new(0));
        let limit = || {
            looks.set(looks.get() + 1);
            Some(Duration::from_secs(1))
        };
        let correct = |health: &Health, took: u64| {
            keeper.offset_to_correct(health, at(100_000), at(100_000 + took), limit)
        };
        let clock = [Feature::Clock];
        assert_eq!(correct(&health(95_000, &clock), 0), Some(-5_000));
        assert_eq!(correct(&health(100_900, &clock), 0), None);
        // An answer that took 10 s may have been right when the guest gave it.
        assert_eq!(correct(&health(100_000, &clock), 10_000), None);
        assert_eq!(correct(&health(95_000, &[]), 0), None);
        assert_eq!(looks.replace(0), 3);
        assert_eq!(correct(&health(100_100, &clock), 0), None);
        assert_eq!(looks.get(), 0, "no limit is that small");
        let never = keeper.offset_to_correct(&health(0, &clock), at(100_000), at(100_000), || None);
        assert_eq!(never, None);
    }
}
