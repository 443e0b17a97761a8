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
    execute_with(monitor, command, &json!({})).map(drop)
}

/// Runs one command, and returns its result.
pub(crate) fn execute_with(
    monitor: &Path,
    command: &str,
    arguments: &Value,
) -> Result<Value, RigError> {
    converse(monitor, command, arguments)
        .map_err(|source| RigError::Monitor { doing: command.to_owned(), source })
}

fn converse(monitor: &Path, command: &str, arguments: &Value) -> io::Result<Value> {
    let stream = UnixStream::connect(monitor)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut stream = stream;
    lines.next().ok_or(io::ErrorKind::UnexpectedEof)??; // the greeting
    // QEMU accepts no other command before the capabilities are negotiated.
    writeln!(stream, "{}", json!({ "execute": "qmp_capabilities" }))?;
    reply(&mut lines)?;
    writeln!(stream, "{}", json!({ "execute": command, "arguments": arguments }))?;
    reply(&mut lines)
}

/// Reads messages until the reply; events may precede it.
fn reply(lines: &mut impl Iterator<Item = io::Result<String>>) -> io::Result<Value> {
    for line in lines {
        let mut message: Value = serde_json::from_str(&line?)?;
        if let Some(result) = message.get_mut("return") {
            return Ok(result.take());
        }
        if let Some(error) = message.get("error") {
            return Err(io::Error::other(error.to_string()));
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
