//! Our own terminal while it is a remote program's.

use crate::failure::Failure;
use minions_api::exec::Tty;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;

/// What a terminal has if nobody knows better.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Whether our input comes from a terminal.
pub(crate) fn input_is_terminal() -> bool {
    isatty(stdin())
}

/// Whether our output goes to a terminal.
pub(crate) fn output_is_terminal() -> bool {
    isatty(stdout())
}

/// Whether somebody reads our remarks as they come.
pub(crate) fn remarks_are_read() -> bool {
    isatty(stderr())
}

/// A terminal like ours for a program elsewhere.
pub(crate) fn like_ours() -> Tty {
    let (rows, cols) = size().unwrap_or(DEFAULT_SIZE);
    let term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
    Tty { rows, cols, term }
}

/// Lines, and characters a line.
pub(crate) fn size() -> Option<(u16, u16)> {
    let sizes = [stdout(), stdin(), stderr()].into_iter().filter_map(|fd| tcgetwinsize(fd).ok());
    sizes.map(|size| (size.ws_row, size.ws_col)).find(|(rows, cols)| *rows > 0 && *cols > 0)
}

/// The terminal passes every key on, until this is dropped: by whatever way, a panic included.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Takes the terminal that is our input.
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
        // If it is gone there is nothing to restore. Not after draining: a terminal that was told to
        // stop its output would keep us.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
