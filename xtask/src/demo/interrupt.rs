//! Ctrl-C and SIGTERM: recorded instead of ending the process, so that the demo can clean up.

use anyhow::{Context, ensure};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Handler of the signals; once it is installed, they no longer end the process.
#[derive(Debug)]
pub(crate) struct InterruptSignal {
    signals: Signals,
}

impl InterruptSignal {
    pub(crate) fn install() -> anyhow::Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle signals")?;
        Ok(Self { signals })
    }

    /// Returns an error if a signal has arrived.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        ensure!(self.signals.pending().next().is_none(), "interrupted");
        Ok(())
    }

    /// Blocks until a signal arrives.
    pub(crate) fn wait(&mut self) {
        self.signals.forever().next();
    }
}
