//! HTTP over one connection that stays open, with the least possible work in the client.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

/// Deadline for an answer; long enough for a very busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Connection to a daemon.
#[derive(Debug)]
pub(crate) struct KeepAlive<S> {
    stream: BufReader<S>,
}

impl KeepAlive<UnixStream> {
    pub(crate) fn unix(path: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("cannot connect to {}", path.display()))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }
}

impl<S: Read + Write> KeepAlive<S> {
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.ask(200, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.post_for(200, path, body)
    }

    /// Sends a POST and expects an answer with the status `expected`.
    pub(crate) fn post_for(
        &mut self,
        expected: u16,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let json = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{json}",
            json.len()
        );
        self.ask(expected, &request)
    }

    fn ask(&mut self, expected: u16, request: &str) -> anyhow::Result<Value> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let Head { status, content_length } = Head::read(&mut self.stream)?;
        let mut body = vec![0; content_length];
        self.stream.read_exact(&mut body)?;
        if status != expected {
            bail!(
                "{request:?} was answered with status {status}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        serde_json::from_slice(&body).context("the answer is not JSON")
    }
}

/// Head of a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) content_length: usize,
}

impl Head {
    pub(crate) fn read(stream: &mut impl BufRead) -> anyhow::Result<Self> {
        let first = header_line(stream)?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut head = Self {
            status: status.context("the response has no valid status line")?,
            content_length: 0,
        };
        loop {
            let line = header_line(stream)?;
            if line.is_empty() {
                return Ok(head);
            }
            let length = line.to_ascii_lowercase();
            if let Some(length) = length.strip_prefix("content-length:") {
                head.content_length =
                    length.trim().parse().context("the response has an invalid Content-Length")?;
            }
        }
    }
}

fn header_line(stream: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(std::io::Error::from(ErrorKind::UnexpectedEof))
            .context("the response ends early");
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_a_head_stops_at_the_body() {
        let mut stream = &b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX: y\r\n\r\n{}"[..];
        let head = Head::read(&mut stream).unwrap();
        assert_eq!((head, stream), (Head { status: 404, content_length: 2 }, &b"{}"[..]));
    }

    #[test]
    fn a_truncated_head_is_an_error() {
        assert!(Head::read(&mut &b"HTTP/1.1 200 OK\r\nX: y\r\n"[..]).is_err());
    }
}
