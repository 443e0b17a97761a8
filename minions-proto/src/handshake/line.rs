//! Lines of the handshake.

/// Longest line in bytes, `\n` included. `OK 18446744073709551615\n` has 24 bytes.
pub const MAX_LINE_LEN: usize = 32;

/// Line that does not belong at this place of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line is not `OK <decimal>`.
    #[error("expected `OK <number>`")]
    NotOk,
    /// The line is not `CONNECT <port>`.
    #[error("expected `CONNECT <port>`")]
    NotConnect,
    /// The first [`MAX_LINE_LEN`] bytes contain no `\n`.
    #[error("no end of line within {MAX_LINE_LEN} bytes")]
    TooLong,
}

/// Returns the line that requests `port`, `\n` included.
#[must_use]
pub fn connect_line(port: u32) -> String {
    format!("CONNECT {port}\n")
}

/// Checks the VMM's answer; `line` is without its `\n`.
///
/// # Errors
///
/// [`LineError::NotOk`] unless it is exactly `OK`, one space, and decimal digits.
pub fn parse_ok(line: &[u8]) -> Result<(), LineError> {
    match line.strip_prefix(b"OK ") {
        Some(digits) if is_decimal(digits) => Ok(()),
        _ => Err(LineError::NotOk),
    }
}

/// Returns the port in a host's line; `line` is without its `\n`.
///
/// # Errors
///
/// [`LineError::NotConnect`] unless it is exactly `CONNECT`, one space, and a port that fits 32
/// bits.
pub fn parse_connect(line: &[u8]) -> Result<u32, LineError> {
    line.strip_prefix(b"CONNECT ")
        .filter(|digits| is_decimal(digits))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .ok_or(LineError::NotConnect)
}

fn is_decimal(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}
