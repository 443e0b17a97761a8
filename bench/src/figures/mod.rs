//! Figures: samples, and the table, JSON and plot that are made of them.

pub(crate) mod clock;
pub(crate) mod plot;
pub(crate) mod report;
pub(crate) mod series;
