//! The parts of the wire protocol that a bench needs: a handshake, a health check.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use anyhow::ensure;

use super::responder::framed;

/// Maximum number of bytes read for the line with OK; longer than any valid one.
const LINE_CAP: usize = 32;

/// Sends CONNECT and reads OK; after that, frames may follow.
pub(crate) fn handshake(mut stream: UnixStream) -> anyhow::Result<UnixStream> {
    stream.write_all(b"CONNECT 1024\n")?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < LINE_CAP && byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    ensure!(line.starts_with(b"OK "), "the peer did not answer CONNECT with OK");
    Ok(stream)
}

/// Sends a health check and reads the complete reply.
pub(crate) fn ask_health(stream: &mut UnixStream) -> anyhow::Result<()> {
    stream.write_all(&framed(br#"{"type":"health_check"}"#))?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut reply = vec![0; usize::try_from(u32::from_be_bytes(prefix))?.min(1 << 20)];
    stream.read_exact(&mut reply)?;
    ensure!(reply.starts_with(br#"{"status":"ok""#), "the reply to the health check is not ok");
    Ok(())
}
