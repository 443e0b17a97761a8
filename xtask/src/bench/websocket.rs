//! A program over minionsd's WebSocket, with a client that costs little: it counts received bytes, and
//! generates those that it sends.

use std::{
    io::{BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{keep_alive::Head, site::VM};

/// Deadline for a message; long enough for a very busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Size of a read, and maximum size of a sent message.
const CHUNK: usize = 64 * 1024;

/// Number of bytes of output after which an ack is sent: a quarter of what the agent keeps.
const ACK_EVERY: u64 = 128 * 1024;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const CONTROL: u8 = 3;

/// Mask of sent messages. Any value works: masking protects proxies between client and server, and here is
/// none.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

/// Program that was started.
#[derive(Debug)]
pub(crate) struct Program {
    stream: BufReader<UnixStream>,
    /// Number of bytes of input that may be unacknowledged.
    window: u64,
    /// Buffers, kept to reuse their memory.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Program {
    /// Starts `sh -c script`, with input if `stdin`.
    pub(crate) fn start(socket: &Path, script: &str, stdin: bool) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).context("cannot connect to minionsd")?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let stream = BufReader::with_capacity(CHUNK, stream);
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        let mut program = Self { stream, window: 0, outgoing, incoming };
        let request = format!(
            "GET /vms/{VM}/exec HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        program.stream.get_mut().write_all(request.as_bytes())?;
        let head = Head::read(&mut program.stream)?;
        ensure!(head.status == 101, "minionsd answered {} to the upgrade", head.status);
        // This does not state whether there is input; without input, an empty message below ends it.
        let start = json!({ "command": "sh", "args": ["-c", script] });
        program.send(TEXT, &[start.to_string().as_bytes()])?;
        let (kind, attached) = program.receive()?;
        ensure!(kind == TEXT, "minionsd's first message is not text");
        let attached: Value = serde_json::from_slice(attached)?;
        program.window = attached["stdin_window"].as_u64().with_context(|| attached.to_string())?;
        if !stdin {
            program.send(BINARY, &[&[STDIN]])?;
        }
        Ok(program)
    }

    /// Reads the output to its end and returns its length.
    pub(crate) fn drain(mut self) -> anyhow::Result<u64> {
        let (mut received, mut acknowledged) = (0, 0);
        loop {
            match self.next()? {
                Event::Output(len) => received += len,
                Event::Exit => return Ok(received),
                Event::Taken(_) | Event::Nothing => {}
            }
            if received - acknowledged >= ACK_EVERY {
                acknowledged = received;
                let ack = json!({ "type": "ack", "stdout": received, "stderr": 0 });
                self.send(BINARY, &[&[CONTROL], ack.to_string().as_bytes()])?;
            }
        }
    }

    /// Sends `len` bytes and the end of the input, and waits until the program has ended.
    pub(crate) fn feed(mut self, len: u64) -> anyhow::Result<()> {
        // With its channel byte, a message still fits the 16-bit length of a frame.
        let chunk = [0; CHUNK - 2];
        let (mut sent, mut taken) = (0, 0);
        while sent < len {
            let part = (len - sent).min(chunk.len() as u64);
            if sent + part > taken + self.window {
                match self.next()? {
                    Event::Taken(offset) => taken = offset,
                    Event::Exit => bail!("the program ended before its input"),
                    Event::Output(_) | Event::Nothing => {}
                }
            } else {
                self.send(BINARY, &[&[STDIN], &chunk[..usize::try_from(part)?]])?;
                sent += part;
            }
        }
        self.send(BINARY, &[&[STDIN]])?;
        while !matches!(self.next()?, Event::Exit) {}
        Ok(())
    }

    fn next(&mut self) -> anyhow::Result<Event> {
        let (kind, message) = self.receive()?;
        ensure!(
            kind == BINARY,
            "minionsd closed the WebSocket: {}",
            String::from_utf8_lossy(message)
        );
        match message {
            [STDOUT, bytes @ ..] => Ok(Event::Output(bytes.len() as u64)),
            [CONTROL, control @ ..] => Event::of(&serde_json::from_slice(control)?),
            _ => Ok(Event::Nothing),
        }
    }

    /// Sends one message that consists of several parts.
    fn send(&mut self, kind: u8, parts: &[&[u8]]) -> anyhow::Result<()> {
        self.outgoing.clear();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.outgoing.push(0x80 | kind);
        match u16::try_from(len) {
            Ok(len) if len < 126 => self.outgoing.push(0x80 | u8::try_from(len)?),
            Ok(len) => {
                self.outgoing.push(0x80 | 126);
                self.outgoing.extend(len.to_be_bytes());
            }
            Err(_) => bail!("this client does not send messages of {len} bytes"),
        }
        self.outgoing.extend(MASK);
        let start = self.outgoing.len();
        for part in parts {
            self.outgoing.extend_from_slice(part);
        }
        mask(&mut self.outgoing[start..]);
        self.stream.get_mut().write_all(&self.outgoing)?;
        Ok(())
    }

    /// Receives one message: minionsd sends each in one frame.
    fn receive(&mut self) -> anyhow::Result<(u8, &[u8])> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        ensure!(
            head[0] & 0x80 != 0 && head[1] & 0x80 == 0,
            "minionsd sent a fragmented or masked frame"
        );
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.stream.read_exact(&mut len)?;
                usize::from(u16::from_be_bytes(len))
            }
            127 => {
                let mut len = [0; 8];
                self.stream.read_exact(&mut len)?;
                usize::try_from(u64::from_be_bytes(len))?
            }
            len => usize::from(len),
        };
        ensure!(len <= 2 << 20, "minionsd sent a message of {len} bytes");
        self.incoming.resize(len, 0);
        self.stream.read_exact(&mut self.incoming)?;
        let kind = head[0] & 0x0f;
        ensure!(matches!(kind, TEXT | BINARY | CLOSE), "minionsd sent a frame of kind {kind}");
        Ok((kind, &self.incoming))
    }
}

/// Meaning of a message for this client.
enum Event {
    Output(u64),
    /// The program has consumed its input up to this offset.
    Taken(u64),
    Exit,
    Nothing,
}

impl Event {
    fn of(control: &Value) -> anyhow::Result<Self> {
        match control["type"].as_str() {
            Some("ack") => Ok(Self::Taken(control["stdin"].as_u64().unwrap_or_default())),
            Some("exit") => {
                ensure!(control["outcome"]["code"] == 0, "the program failed: {control}");
                Ok(Self::Exit)
            }
            Some("gap" | "error") => bail!("bytes were lost: {control}"),
            _ => Ok(Self::Nothing),
        }
    }
}

fn mask(bytes: &mut [u8]) {
    for four in bytes.chunks_mut(MASK.len()) {
        for (byte, mask) in four.iter_mut().zip(MASK) {
            *byte ^= mask;
        }
    }
}
