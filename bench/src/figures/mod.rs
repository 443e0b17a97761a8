//! From samples to a table, JSON and a plot.

pub(crate) mod clock;
pub(crate) mod plot;
pub(crate) mod report;
pub(crate) mod series;
