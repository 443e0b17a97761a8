//! Statistics of values that were measured several times.

use serde_json::{Value, json};

/// Values of one quantity, one for each round.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RoundSeries(Vec<f64>);

impl RoundSeries {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Returns the median; for an even number of samples, the mean of the middle two. NaN without samples.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    /// Returns half the interquartile range, as a fraction of the median.
    pub(crate) fn spread(&self) -> f64 {
        let iqr = quantile(&self.0, 0.75) - quantile(&self.0, 0.25);
        iqr / 2.0 / self.median()
    }

    /// Divides by `peer` round by round: an influence that slows a whole round affects both and cancels out.
    pub(crate) fn over(&self, peer: &Self) -> Self {
        Self(self.0.iter().zip(&peer.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// Adds `other` round by round.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, two)| one + two).collect())
    }

    /// Returns samples, median and spread as JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "samples": self.0, "median": self.median(), "spread": self.spread() })
    }
}

impl FromIterator<f64> for RoundSeries {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// Returns the quantile `at`, interpolated linearly between the adjacent samples. NaN without samples.
pub(crate) fn quantile(samples: &[f64], at: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[expect(clippy::cast_precision_loss, reason = "there are few samples")]
    let position = at * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and the last index"
    )]
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: &[f64]) -> RoundSeries {
        samples.iter().copied().collect()
    }

    #[test]
    fn the_median_is_the_middle_value_in_any_order() {
        assert_eq!(series(&[9.0, 1.0, 5.0]).median(), 5.0);
        assert_eq!(series(&[4.0, 1.0, 2.0, 100.0]).median(), 3.0);
        assert!(series(&[]).median().is_nan());
    }

    #[test]
    fn the_spread_is_half_the_interquartile_range_over_the_median() {
        assert_eq!(series(&[10.0; 5]).spread(), 0.0);
        assert_eq!(series(&[8.0, 9.0, 10.0, 11.0, 12.0]).spread(), 0.1);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The second round was twice as slow for both.
        let (ours, theirs) = (series(&[2.0, 4.0, 2.0]), series(&[1.0, 2.0, 1.0]));
        assert_eq!(ours.over(&theirs), series(&[2.0, 2.0, 2.0]));
        assert_eq!(ours.plus(&theirs), series(&[3.0, 6.0, 3.0]));
    }
}
