//! A minimal hybrid-vsock handshake: enough to see whether a guest listens.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Timeout of each read and write. A running guest answers in milliseconds; this is for a very busy machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum length of the line; the longest valid one, `OK 4294967295\n`, has 14 bytes.
const LINE_CAP: usize = 32;

/// Connects, requests `port`, and returns the stream, on which frames may follow.
pub(crate) fn connect(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // One write: backends drop a request that arrives in two pieces.
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let line = read_line(&mut stream)?;
    let number = line.strip_prefix("OK ").and_then(|number| number.parse::<u32>().ok());
    if number.is_none() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the answer to CONNECT is {line:?}"),
        ));
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// Reads a line byte by byte: the bytes after it belong to the caller.
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
