//! The local terminal, while a remote program uses it.

use crate::failure::Failure;
use minions_api::exec::Tty;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;

/// Rows and columns of a remote terminal if the local size is unknown.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Reports whether standard input is a terminal.
pub(crate) fn input_is_terminal() -> bool {
    isatty(stdin())
}

/// Reports whether standard output is a terminal.
pub(crate) fn output_is_terminal() -> bool {
    isatty(stdout())
}

/// Reports whether standard error is a terminal.
pub(crate) fn remarks_are_read() -> bool {
    isatty(stderr())
}

/// Returns the settings of a remote terminal with the local size and `TERM`.
pub(crate) fn like_ours() -> Tty {
    let (rows, cols) = size().unwrap_or(DEFAULT_SIZE);
    let term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
    Tty { rows, cols, term }
}

/// Returns rows and columns of the local terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let sizes = [stdout(), stdin(), stderr()].into_iter().filter_map(|fd| tcgetwinsize(fd).ok());
    sizes.map(|size| (size.ws_row, size.ws_col)).find(|(rows, cols)| *rows > 0 && *cols > 0)
}

/// Guard that keeps the terminal in raw mode, in which every key is passed on. Dropping it, also in a panic,
/// restores the former mode.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Sets the terminal on standard input to raw mode.
    pub(crate) fn take() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| Failure::Terminal(io::Error::from(error));
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // An error means that the terminal is gone. `Now`, not `Drain`: a terminal whose output is stopped
        // (Ctrl-S) would block forever.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
