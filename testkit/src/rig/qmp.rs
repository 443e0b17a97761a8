//! The part of QEMU's monitor protocol (JSON lines on a Unix socket) that the rig needs.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use super::error::RigError;

/// Timeout of each read and write. The monitor runs in QEMU's main loop: it answers at once, or never.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs one command without arguments, for example `system_reset`.
pub(crate) fn execute(monitor: &Path, command: &str) -> Result<(), RigError> {
    converse(monitor, command)
        .map_err(|source| RigError::Monitor { doing: command.to_owned(), source })
}

fn converse(monitor: &Path, command: &str) -> io::Result<()> {
    let stream = UnixStream::connect(monitor)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut stream = stream;
    lines.next().ok_or(io::ErrorKind::UnexpectedEof)??; // the greeting
    // QEMU accepts no other command before the capabilities are negotiated.
    for command in ["qmp_capabilities", command] {
        writeln!(stream, "{}", json!({ "execute": command }))?;
        reply(&mut lines)?;
    }
    Ok(())
}

/// Reads messages until the reply; events may precede it.
fn reply(lines: &mut impl Iterator<Item = io::Result<String>>) -> io::Result<()> {
    for line in lines {
        let message: Value = serde_json::from_str(&line?)?;
        if message.get("return").is_some() {
            return Ok(());
        }
        if let Some(error) = message.get("error") {
            return Err(io::Error::other(error.to_string()));
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
