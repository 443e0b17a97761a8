//! The parts of the wire protocol that a benchmark needs: a handshake, a health check.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
};

use anyhow::ensure;
use minions_proto::{
    frame::Decoder,
    handshake::{MAX_LINE_LEN, connect_line, parse_ok},
    message::{HealthCheck, encode_request},
    version::AGENT_PORT,
};

/// Connection to an agent after the handshake.
#[derive(Debug)]
pub(crate) struct WireClient {
    stream: UnixStream,
    decoder: Decoder,
    health_check: Vec<u8>,
}

impl WireClient {
    /// Sends CONNECT and reads OK; after that, frames may follow.
    pub(crate) fn handshake(mut stream: UnixStream) -> anyhow::Result<Self> {
        stream.write_all(connect_line(AGENT_PORT).as_bytes())?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.len() < MAX_LINE_LEN && byte != *b"\n" {
            stream.read_exact(&mut byte)?;
            line.extend(byte);
        }
        parse_ok(line.trim_ascii_end())?;
        let health_check = encode_request(&HealthCheck {})?;
        Ok(Self { stream, decoder: Decoder::new(), health_check })
    }

    /// Sends a health check and reads the complete reply.
    pub(crate) fn ask_health(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.health_check)?;
        let mut chunk = [0; 4096];
        let reply = loop {
            if let Some(reply) = self.decoder.next_frame()? {
                break reply;
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
                read => self.decoder.extend(&chunk[..read]),
            }
        };
        // Not parsed completely: the benchmark measures the exchange.
        ensure!(reply.starts_with(br#"{"status":"ok""#), "the reply to the health check is not ok");
        Ok(())
    }
}
