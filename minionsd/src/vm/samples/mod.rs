//! Figures of one guest that minionsd keeps: the last sample, and points of the last hour.

mod point;
mod series;

pub(crate) use series::{KeptSample, SampleSeries};
