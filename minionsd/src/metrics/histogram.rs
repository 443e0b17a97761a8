//! A histogram of durations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds. The range covers a call to an agent (a fraction of a millisecond)
/// and a deadline (some seconds).
const BOUNDS: [u64; 13] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// Counts by bucket. An observation costs two atomic additions.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Counts of the bounds, and of longer durations.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns the bounds in seconds (`+Inf` last) with their cumulative counts, and the sum in seconds.
    pub(crate) fn figures(&self) -> (Vec<(String, u64)>, f64) {
        let mut total = 0;
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound).to_string());
        let cumulated = bounds.chain(std::iter::once("+Inf".to_owned())).zip(&self.buckets);
        let figures = cumulated.map(|(bound, bucket)| {
            total += bucket.load(Ordering::Relaxed);
            (bound, total)
        });
        (figures.collect(), seconds(self.sum_micros.load(Ordering::Relaxed)))
    }
}

/// Converts microseconds to seconds.
#[expect(clippy::cast_precision_loss, reason = "only a sum above 285 years loses a microsecond")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_durations_up_to_its_bound() {
        let histogram = Histogram::default();
        for us in [50, 100, 101, 60_000_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let (figures, sum) = histogram.figures();
        assert_eq!(figures.first(), Some(&("0.0001".to_owned(), 2)));
        assert_eq!(figures.get(1), Some(&("0.00025".to_owned(), 3)));
        assert_eq!(figures.last(), Some(&("+Inf".to_owned(), 4)));
        assert!((sum - 60.000_251).abs() < 1e-9);
    }
}
