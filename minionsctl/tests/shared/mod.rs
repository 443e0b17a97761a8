//! Helpers that both test programs use.

pub(crate) mod command;
pub(crate) mod process;
pub(crate) mod pty;
