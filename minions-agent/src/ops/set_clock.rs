//! `set_clock`: sets the wall clock. Timers of the agent use other clocks and are not affected.

use minions_proto::message::{ClockSet, SetClock};
use minions_proto::{AgentError, ErrorCode};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

pub(crate) fn answer(call: SetClock) -> Result<ClockSet, AgentError> {
    let wanted = call.validate()?.time_unix_ms;
    let before = now_ms();
    let refused = |error: rustix::io::Errno| {
        AgentError::new(ErrorCode::ClockFailed, format!("cannot set the clock: {error}"))
            .with_errno(Some(error.raw_os_error()))
    };
    clock_settime(ClockId::Realtime, timespec(wanted)).map_err(refused)?;
    let step_ms = i64::try_from(i128::from(wanted) - i128::from(before)).unwrap_or(i64::MAX);
    tracing::info!(step_ms, "clock set");
    Ok(ClockSet { step_ms })
}

/// Returns the wall clock in milliseconds since 1970; 0 if the clock is set to an earlier time.
pub(super) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let millis = i128::from(now.tv_sec) * 1000 + i128::from(now.tv_nsec) / 1_000_000;
    u64::try_from(millis).unwrap_or(0)
}

fn timespec(ms: u64) -> Timespec {
    // In range: the request was validated.
    let tv_sec = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let tv_nsec = i64::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
    Timespec { tv_sec, tv_nsec }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_of_range_is_refused_and_the_clock_not_set() {
        let error = answer(SetClock { time_unix_ms: 1 }).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("time_unix_ms"));
    }

    #[test]
    fn milliseconds_become_seconds_and_nanoseconds() {
        let time = timespec(1_577_836_800_042);
        assert_eq!((time.tv_sec, time.tv_nsec), (1_577_836_800, 42_000_000));
    }
}
