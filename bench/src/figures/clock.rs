//! Durations of pieces of work.

use std::time::{Duration, Instant};

use super::series::quantile;

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Returns the median duration of `times` runs of `work`, in microseconds.
pub(crate) fn p50(times: u32, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..times {
        samples.push(microseconds(timed(&mut work)?));
    }
    Ok(quantile(&samples, 0.5))
}

/// Returns the duration of one run of `work`.
pub(crate) fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}
