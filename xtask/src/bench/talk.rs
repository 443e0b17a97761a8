//! The wire as far as a bench needs it: a handshake, a health check.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use anyhow::ensure;

use super::responder::framed;

/// Longer than any line that grants.
const LINE_CAP: usize = 32;

/// CONNECT and OK: frames may follow.
pub(crate) fn handshake(mut stream: UnixStream) -> anyhow::Result<UnixStream> {
    stream.write_all(b"CONNECT 1024\n")?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < LINE_CAP && byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    ensure!(line.starts_with(b"OK "), "no OK");
    Ok(stream)
}

/// One whole answer.
pub(crate) fn ask_health(stream: &mut UnixStream) -> anyhow::Result<()> {
    stream.write_all(&framed(br#"{"type":"health_check"}"#))?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut reply = vec![0; usize::try_from(u32::from_be_bytes(prefix))?.min(1 << 20)];
    stream.read_exact(&mut reply)?;
    ensure!(reply.starts_with(br#"{"status":"ok""#), "not ok");
    Ok(())
}
