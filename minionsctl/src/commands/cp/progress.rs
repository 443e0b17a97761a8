//! Progress on a terminal: bytes, rate, and the time left if the total is known.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// Form without a total.
const OPEN: &str = "{spinner} {binary_bytes}  {binary_bytes_per_sec}";

/// Form with a total.
const CLOSED: &str =
    "{spinner} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";

/// Interval between two updates of the terminal.
const TICK: Duration = Duration::from_millis(200);

/// Progress of all copies of a command.
#[derive(Debug, Clone)]
pub(super) struct CopyProgress(Option<ProgressBar>);

impl CopyProgress {
    /// Begins to show the progress, if standard error is a terminal and `quiet` is not set.
    pub(super) fn new(quiet: bool) -> Self {
        if quiet || !stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::no_length();
        bar.set_draw_target(ProgressDrawTarget::stderr());
        set_form(&bar, OPEN);
        bar.enable_steady_tick(TICK);
        Self(Some(bar))
    }

    /// Reports whether the progress is shown.
    pub(super) fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// Adds bytes to the total.
    pub(super) fn expect(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            if bar.length().is_none() {
                set_form(bar, CLOSED);
            }
            bar.set_length(bar.length().unwrap_or(0).saturating_add(bytes));
        }
    }

    /// Adds copied bytes.
    pub(super) fn add(&self, bytes: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes as u64);
        }
    }

    /// Prints something to the terminal while the progress is hidden.
    pub(super) fn aside(&self, print: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Removes the progress from the terminal.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn set_form(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}
