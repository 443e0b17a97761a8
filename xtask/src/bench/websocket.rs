//! A program over minionsd's WebSocket, with a client that costs little: it counts bytes that come,
//! and makes those that go.

use std::{
    io::{BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{keep_alive::Head, site::VM};

/// For a message, on a machine that is very busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is read at a time, and the most that is sent in one message.
const CHUNK: usize = 64 * 1024;

/// How much may come before it is acknowledged: a quarter of what the agent keeps.
const ACK_EVERY: u64 = 128 * 1024;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const CONTROL: u8 = 3;

/// Any will do: it is there so that no proxy in between can be fooled, and there is none.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Program {
    stream: BufReader<UnixStream>,
    /// How many bytes of input may be on their way.
    window: u64,
    /// Kept, so that its memory is.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Program {
    /// Starts `sh -c script`, with an input if `stdin`.
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
        ensure!(head.status == 101, "minionsd answers {} to an upgrade", head.status);
        // Input is there or not by whether anything but its end comes.
        let start = json!({ "command": "sh", "args": ["-c", script] });
        program.send(TEXT, &[start.to_string().as_bytes()])?;
        let (kind, attached) = program.receive()?;
        ensure!(kind == TEXT, "minionsd's first message is no text");
        let attached: Value = serde_json::from_slice(attached)?;
        program.window = attached["stdin_window"].as_u64().with_context(|| attached.to_string())?;
        if !stdin {
            program.send(BINARY, &[&[STDIN]])?;
        }
        Ok(program)
    }

    /// Reads its output to its end: how many bytes that were.
    pub(crate) fn drain(mut self) -> anyhow::Result<u64> {
        let (mut received, mut acknowledged) = (0, 0);
        loop {
            match self.next()? {
                Said::Output(len) => received += len,
                Said::Exit => return Ok(received),
                Said::Taken(_) | Said::Nothing => {}
            }
            if received - acknowledged >= ACK_EVERY {
                acknowledged = received;
                let ack = json!({ "type": "ack", "stdout": received, "stderr": 0 });
                self.send(BINARY, &[&[CONTROL], ack.to_string().as_bytes()])?;
            }
        }
    }

    /// Sends it `len` bytes and their end, and waits until it has ended.
    pub(crate) fn feed(mut self, len: u64) -> anyhow::Result<()> {
        // With its channel byte as long as two bytes can say.
        let chunk = [0; CHUNK - 2];
        let (mut sent, mut taken) = (0, 0);
        while sent < len {
            let part = (len - sent).min(chunk.len() as u64);
            if sent + part > taken + self.window {
                match self.next()? {
                    Said::Taken(offset) => taken = offset,
                    Said::Exit => bail!("it ended before its input did"),
                    Said::Output(_) | Said::Nothing => {}
                }
            } else {
                self.send(BINARY, &[&[STDIN], &chunk[..usize::try_from(part)?]])?;
                sent += part;
            }
        }
        self.send(BINARY, &[&[STDIN]])?;
        while !matches!(self.next()?, Said::Exit) {}
        Ok(())
    }

    fn next(&mut self) -> anyhow::Result<Said> {
        let (kind, message) = self.receive()?;
        ensure!(kind == BINARY, "minionsd closes: {}", String::from_utf8_lossy(message));
        match message {
            [STDOUT, bytes @ ..] => Ok(Said::Output(bytes.len() as u64)),
            [CONTROL, control @ ..] => Said::of(&serde_json::from_slice(control)?),
            _ => Ok(Said::Nothing),
        }
    }

    /// One message of several parts.
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
            Err(_) => bail!("longer than this client needs it"),
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

    /// One message: minionsd sends each in one frame.
    fn receive(&mut self) -> anyhow::Result<(u8, &[u8])> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        ensure!(head[0] & 0x80 != 0 && head[1] & 0x80 == 0, "not as this client knows it");
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
        ensure!(len <= 2 << 20, "a message of {len} bytes");
        self.incoming.resize(len, 0);
        self.stream.read_exact(&mut self.incoming)?;
        let kind = head[0] & 0x0f;
        ensure!(matches!(kind, TEXT | BINARY | CLOSE), "a frame of kind {kind}");
        Ok((kind, &self.incoming))
    }
}

/// What a message means to this client.
enum Said {
    Output(u64),
    /// The program has taken its input up to here.
    Taken(u64),
    Exit,
    Nothing,
}

impl Said {
    fn of(control: &Value) -> anyhow::Result<Self> {
        match control["type"].as_str() {
            Some("ack") => Ok(Self::Taken(control["stdin"].as_u64().unwrap_or_default())),
            Some("exit") => {
                ensure!(control["outcome"]["code"] == 0, "it failed: {control}");
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
