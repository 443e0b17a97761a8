//! How far guests' clocks are off, and setting those that are off by too much.

use crate::agent::AgentConnection;
use minions_api::VmName;
use minions_proto::message::{CLOCK_FEATURE, Health, SetClock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A guest that undoes it, or an agent that may not do it, is asked no more often than this.
const GAP: Duration = Duration::from_mins(1);

/// How long an agent has for one system call.
const DEADLINE: Duration = Duration::from_secs(1);

/// How far a clock is ahead of ours that said `theirs` at some moment between `asked` and `answered`,
/// in milliseconds. Right to half of that time.
pub(crate) fn offset_ms(theirs: u64, asked: SystemTime, answered: SystemTime) -> i64 {
    let [asked, answered] = [asked, answered].map(|time| i128::from(unix_ms(time)));
    let ahead = i128::from(theirs) - (asked + answered) / 2;
    i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
}

/// Milliseconds since 1970; 0 before.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Keeps one guest's clock within a limit of ours.
#[derive(Debug)]
pub(crate) struct ClockKeeper {
    /// `None`: nobody wants that.
    limit: Option<Duration>,
    tried: Option<Instant>,
}

impl ClockKeeper {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit, tried: None }
    }

    /// Sets the clock of a guest that gave this answer between `asked` and now, if it is off by more than
    /// the limit and nobody tried a moment ago.
    ///
    /// Not cancel safe: the connection can't be used any more when the future was dropped.
    pub(crate) async fn keep(
        &mut self,
        vm: &VmName,
        connection: &mut AgentConnection,
        health: &Health,
        asked: SystemTime,
    ) {
        let Some(offset) = self.too_far(health, asked, SystemTime::now()) else { return };
        self.tried = Some(Instant::now());
        let call = SetClock { time_unix_ms: unix_ms(SystemTime::now()) };
        match connection.call(&call, Instant::now() + DEADLINE).await {
            Ok(set) => tracing::info!(%vm, offset_ms = offset, step_ms = set.step_ms, "clock set"),
            Err(error) => tracing::warn!(%vm, offset_ms = offset, %error, "clock not set"),
        }
    }

    fn too_far(&self, health: &Health, asked: SystemTime, answered: SystemTime) -> Option<i64> {
        let offset = offset_ms(health.time_unix_ms?, asked, answered);
        let waited = self.tried.is_none_or(|tried| tried.elapsed() >= GAP);
        let limit = u64::try_from(self.limit?.as_millis()).unwrap_or(u64::MAX);
        // What the exchange itself took says nothing about the clock.
        let doubt = unix_ms(answered).saturating_sub(unix_ms(asked)) / 2;
        let knows = health.agent.as_ref()?.supports(CLOCK_FEATURE);
        let off = offset.unsigned_abs().saturating_sub(doubt) > limit;
        (knows && off && waited).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::AgentInfo;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn health(time_unix_ms: u64, features: &[&str]) -> Health {
        let agent = AgentInfo {
            name: "a".into(),
            version: "1".into(),
            protocol: 2,
            features: features.iter().map(ToString::to_string).collect(),
            boot_id: "b".into(),
            instance_id: "i".into(),
            allowed: None,
        };
        let time_unix_ms = Some(time_unix_ms);
        Health { uptime_secs: 1, hostname: "h".into(), agent: Some(agent), time_unix_ms }
    }

    #[test]
    fn an_offset_is_from_the_middle_of_the_exchange() {
        assert_eq!(offset_ms(10_000, at(9_000), at(9_100)), 950);
        assert_eq!(offset_ms(0, at(5_000), at(5_000)), -5_000);
        assert_eq!(offset_ms(u64::MAX, at(0), at(0)), i64::MAX);
    }

    #[test]
    fn only_a_clock_that_is_surely_off_is_set() {
        let keeper = ClockKeeper::new(Some(Duration::from_secs(1)));
        let far =
            |health: &Health, took: u64| keeper.too_far(health, at(100_000), at(100_000 + took));
        let knows = [CLOCK_FEATURE];
        assert_eq!(far(&health(95_000, &knows), 0), Some(-5_000));
        assert_eq!(far(&health(100_900, &knows), 0), None);
        // An answer that was on its way for 10 s may have been right when it was given.
        assert_eq!(far(&health(100_000, &knows), 10_000), None);
        assert_eq!(far(&health(95_000, &[]), 0), None);
        let never = ClockKeeper::new(None);
        assert_eq!(never.too_far(&health(0, &knows), at(100_000), at(100_000)), None);
    }
}
