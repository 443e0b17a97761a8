//! The measured programs of this project, and programs that run in the background.

pub(crate) mod background;
pub(crate) mod foreground;
pub(crate) mod site;
pub(crate) mod usage;

use std::path::PathBuf;

/// Paths of the measured programs.
#[derive(Debug)]
pub(crate) struct MeasuredPrograms {
    pub(crate) minionsd: PathBuf,
    pub(crate) minionsctl: PathBuf,
    /// Static build, as installed in a guest.
    pub(crate) agent: PathBuf,
    /// This program, which is also the responder.
    pub(crate) bench: PathBuf,
}

/// Amount of work in a benchmark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: u32,
    /// Shows that the benchmarks run, but the figures mean little.
    pub(crate) is_quick: bool,
}
