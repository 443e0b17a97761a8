//! CPU usage, from samples taken in the background.

use super::super::proc_files::CpuTicks;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Interval between two samples: long enough to average over bursts, short enough to be current.
const SAMPLE: Duration = Duration::from_secs(5);

/// CPU meter that samples in the background until it is dropped.
#[derive(Debug)]
pub(super) struct CpuMeter {
    percent: watch::Receiver<Option<f64>>,
    sampler: JoinHandle<()>,
}

impl CpuMeter {
    pub(super) fn start() -> Self {
        let (publish, percent) = watch::channel(None);
        Self { percent, sampler: crate::task::spawn(sample(publish)) }
    }

    /// Returns the usage in the last sample, in percent; `None` before the first sample is complete.
    pub(super) fn percent(&self) -> Option<f64> {
        *self.percent.borrow()
    }
}

impl Drop for CpuMeter {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

async fn sample(publish: watch::Sender<Option<f64>>) {
    let mut before = CpuTicks::now();
    loop {
        sleep(SAMPLE).await;
        let after = CpuTicks::now();
        publish
            .send_replace(before.zip(after).and_then(|(before, after)| after.busy_since(before)));
        before = after;
    }
}

impl CpuTicks {
    /// Returns the usage since `before` in percent, rounded to a tenth. The kernel's idle ticks can decrease
    /// slightly.
    fn busy_since(self, before: Self) -> Option<f64> {
        let total = u32::try_from(self.total().checked_sub(before.total())?).ok()?;
        let idle = u32::try_from(self.idle().saturating_sub(before.idle())).ok()?.min(total);
        let busy = f64::from(total - idle) / f64::from(total) * 100.0;
        (total > 0).then(|| (busy * 10.0).round() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_computed_between_two_samples() {
        let ticks =
            |idle, total| CpuTicks { modes: [total - idle, 0, 0, idle, 0, 0, 0, 0], cpus: 1 };
        let before = ticks(1_000, 2_000);
        let busy = |idle, total| ticks(idle, total).busy_since(before);
        assert_eq!(busy(1_075, 2_100), Some(25.0));
        assert_eq!(busy(1_000, 2_100), Some(100.0));
        assert_eq!(busy(999, 2_100), Some(100.0));
        assert_eq!(busy(1_100, 2_100), Some(0.0));
        assert_eq!(busy(1_000, 2_000), None);
    }
}
