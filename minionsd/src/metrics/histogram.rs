//! How long things take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: a call to an agent takes a fraction of a millisecond, a
/// deadline some seconds.
const BOUNDS: [u64; 13] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// Counts by bucket. Taking part costs two additions.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One more than bounds: the rest.
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

    /// Each bound in seconds (`+Inf` last) with how many took no longer; and the sum in seconds.
    pub(crate) fn figures(&self) -> (Vec<(String, u64)>, f64) {
        let mut total = 0;
        let bounds = BOUNDS.iter().map(|bound| (micros(*bound)).to_string());
        let cumulated = bounds.chain(std::iter::once("+Inf".to_owned())).zip(&self.buckets);
        let figures = cumulated.map(|(bound, bucket)| {
            total += bucket.load(Ordering::Relaxed);
            (bound, total)
        });
        (figures.collect(), micros(self.sum_micros.load(Ordering::Relaxed)))
    }
}

/// As seconds.
#[expect(clippy::cast_precision_loss, reason = "a sum of 285 years would lose a microsecond")]
fn micros(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_took_no_longer() {
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
