//! Messages on the console, between those of the kernel.

use std::io::{self, Write};

/// Writes a line to the console.
pub(super) fn console(text: impl std::fmt::Display) {
    // Ignored: without a console there is no other output.
    let _ = writeln!(io::stderr(), "init: {text}");
}

/// Writes an error of step `what` to the console. Returns the value on success.
pub(super) fn report<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| console(format_args!("{what}: {error}"))).ok()
}
