//! The only request that the rig itself sends to an agent: one that kills it.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::json;

/// Timeout of each read and write. A process in the guest ends within milliseconds; this is for a very busy
/// machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the agent at the other end run a program that kills the agent, and waits for the end of the
/// connection.
pub(crate) fn kill(mut stream: UnixStream) -> io::Result<()> {
    let exec = json!({
        "type": "exec",
        "command": "sh",
        "args": ["-c", "kill -KILL $(pidof minions-agent)"],
    });
    let request = exec.to_string();
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.take(1024).read_to_end(&mut answer) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Ok(_) => Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())),
        Err(error) => Err(error),
    }
}
