//! The hybrid-vsock handshake, done the simplest way: enough to see whether a guest listens.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// A guest that is up answers in milliseconds; this is for a machine that is very busy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `OK 4294967295\n` is 14 bytes.
const LINE_CAP: usize = 32;

/// Connects, asks for `port`, and gives the stream on which frames may follow.
pub(crate) fn connect(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // One write: backends drop a request that comes in two.
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let line = read_line(&mut stream)?;
    let number = line.strip_prefix("OK ").and_then(|number| number.parse::<u32>().ok());
    if number.is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("answered {line:?}")));
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// Reads byte by byte: what follows the line belongs to the caller.
fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_CAP {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return String::from_utf8(line)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
        line.extend(byte);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no line end in the first 32 bytes"))
}
