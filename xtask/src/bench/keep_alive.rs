//! HTTP over one connection that stays open: as little as a client can do.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

/// For an answer, on a machine that is very busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// One connection to a daemon.
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

    /// Likewise, for an answer with another status.
    pub(crate) fn post_for(
        &mut self,
        expected: u16,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.ask(expected, &request)
    }

    fn ask(&mut self, expected: u16, request: &str) -> anyhow::Result<Value> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let Head { status, content_length } = Head::read(&mut self.stream)?;
        let mut body = vec![0; content_length];
        self.stream.read_exact(&mut body)?;
        if status != expected {
            bail!("{request:?} was answered {status}: {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).context("the answer is no JSON")
    }
}

/// What a response begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) content_length: usize,
}

impl Head {
    pub(crate) fn read(stream: &mut impl BufRead) -> anyhow::Result<Self> {
        let first = header_line(stream)?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut head = Self { status: status.context("no status line")?, content_length: 0 };
        loop {
            let line = header_line(stream)?;
            if line.is_empty() {
                return Ok(head);
            }
            let length = line.to_ascii_lowercase();
            if let Some(length) = length.strip_prefix("content-length:") {
                head.content_length = length.trim().parse().context("no length")?;
            }
        }
    }
}

fn header_line(stream: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(std::io::Error::from(ErrorKind::UnexpectedEof)).context("no whole response");
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_where_the_body_begins() {
        let mut stream = &b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX: y\r\n\r\n{}"[..];
        let head = Head::read(&mut stream).unwrap();
        assert_eq!((head, stream), (Head { status: 404, content_length: 2 }, &b"{}"[..]));
    }

    #[test]
    fn a_head_that_breaks_off_is_no_head() {
        assert!(Head::read(&mut &b"HTTP/1.1 200 OK\r\nX: y\r\n"[..]).is_err());
    }
}
