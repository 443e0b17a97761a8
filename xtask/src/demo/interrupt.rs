//! Ctrl-C and SIGTERM: noted instead of killing us, so that the demo can clean up.

use anyhow::{Context, ensure};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// From its creation on, the signals no longer end the process.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: Signals,
}

impl Interrupt {
    pub(crate) fn install() -> anyhow::Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle signals")?;
        Ok(Self { signals })
    }

    /// An error if a signal has come.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        ensure!(self.signals.pending().next().is_none(), "interrupted");
        Ok(())
    }

    /// Blocks until a signal comes.
    pub(crate) fn wait(&mut self) {
        self.signals.forever().next();
    }
}
