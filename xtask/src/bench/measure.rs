//! Numbers that were measured several times, and what is said of them.

use serde_json::{Value, json};

/// One quantity, once a round.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The middle one; of an even number, the mean of the two in the middle. NaN without samples.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    /// Half the distance from the lower to the upper quartile, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        let iqr = quantile(&self.0, 0.75) - quantile(&self.0, 0.25);
        iqr / 2.0 / self.median()
    }

    /// Round by round, this over `peer`: what slows a whole round down is in both and goes away.
    pub(crate) fn over(&self, peer: &Self) -> Self {
        Self(self.0.iter().zip(&peer.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// Round by round, this plus `other`.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, two)| one + two).collect())
    }

    /// Samples, median and spread.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "samples": self.0, "median": self.median(), "spread": self.spread() })
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// Between the samples next to it, linearly. NaN without samples.
pub(crate) fn quantile(samples: &[f64], at: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[expect(clippy::cast_precision_loss, reason = "there are few samples")]
    let position = at * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between nought and the last index"
    )]
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: &[f64]) -> Series {
        samples.iter().copied().collect()
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(series(&[9.0, 1.0, 5.0]).median(), 5.0);
        assert_eq!(series(&[4.0, 1.0, 2.0, 100.0]).median(), 3.0);
        assert!(series(&[]).median().is_nan());
    }

    #[test]
    fn the_spread_is_half_the_quartiles_distance_relative_to_the_median() {
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
