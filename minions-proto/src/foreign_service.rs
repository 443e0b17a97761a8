//! Services other than an agent, recognised by the first bytes that they send.
//!
//! The first bytes of an agent are a frame: a length of at most 1 MiB (so the first byte is zero) and a JSON object.
//! Other first bytes come from another service that listens on the agent's port.

use crate::frame::{MAX_FRAME_LEN, PREFIX_LEN};
use std::fmt;

/// Number of first bytes that are examined.
pub const LOOKED_AT: usize = 64;

/// Longest excerpt of a service's text, in characters.
const MAX_EXCERPT: usize = 48;

/// Shortest text, in bytes. Fewer printable bytes may be part of a number.
const MIN_TEXT: usize = 2;

/// Header of an HTTP/2 frame (RFC 9113, section 4.1): length (3 bytes), type, flags, stream.
const HTTP2_HEADER: usize = 9;

/// Frames that a server sends first, on stream 0: SETTINGS, or GOAWAY.
const HTTP2_FIRST: [u8; 2] = [4, 7];

/// Header of a TTRPC message: length (4 bytes), stream (4 bytes), type, flags.
const TTRPC_HEADER: usize = 10;

/// Messages that a TTRPC server sends: a response, or data of a stream.
const TTRPC_SENT: [u8; 2] = [2, 3];

/// Service that is not an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignService {
    /// Its protocol.
    pub kind: ServiceKind,
    /// Beginning of its first line, if that is printable ASCII.
    pub excerpt: Option<String>,
}

/// Kind of service, by its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// SSH (RFC 4253): the server sends its version first.
    Ssh,
    /// HTTP/1, or an HTML page without a response head.
    Http,
    /// HTTP/2, which gRPC uses.
    Http2,
    /// TTRPC, which container agents use.
    Ttrpc,
    /// A TLS record.
    Tls,
    /// JSON without a length prefix.
    Json,
    /// Other text.
    Text,
    /// Length-prefixed messages that are not JSON, or whose length has another byte order.
    Frames,
    /// Other bytes.
    Binary,
}

impl ServiceKind {
    /// Returns the end of the sentence "it looks like …".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "an SSH server",
            Self::Http => "an HTTP server",
            Self::Http2 => "an HTTP/2 or gRPC server",
            Self::Ttrpc => "a TTRPC server, such as a container agent",
            Self::Tls => "a TLS server",
            Self::Json => "a service that sends JSON lines, such as qemu-guest-agent",
            Self::Text => "a service that sends text",
            Self::Frames => "a service with another length-prefixed protocol",
            Self::Binary => "a service with a binary protocol",
        }
    }
}

impl fmt::Display for ForeignService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match &self.excerpt {
            Some(excerpt) => write!(f, ": {excerpt:?}"),
            None => Ok(()),
        }
    }
}

impl ForeignService {
    /// Recognises a service by its first bytes, of which at most [`LOOKED_AT`] are examined. Returns `None` if an
    /// agent's reply may begin with them, or if they are too few.
    #[must_use]
    pub fn recognise(first: &[u8]) -> Option<Self> {
        let first = first.get(..LOOKED_AT).unwrap_or(first);
        if may_be_reply(first) {
            return None;
        }
        let text = printable(first);
        let kind = kind(first, text);
        let shown = match kind {
            ServiceKind::Ssh | ServiceKind::Http | ServiceKind::Json | ServiceKind::Text => {
                Some(text)
            }
            ServiceKind::Http2
            | ServiceKind::Ttrpc
            | ServiceKind::Tls
            | ServiceKind::Frames
            | ServiceKind::Binary => None,
        };
        let excerpt = shown.filter(|text| !text.is_empty());
        Some(Self { kind, excerpt: excerpt.map(|text| text.chars().take(MAX_EXCERPT).collect()) })
    }
}

/// Reports whether an agent's frame can begin with these bytes.
fn may_be_reply(first: &[u8]) -> bool {
    let Some(prefix) = first.first_chunk::<PREFIX_LEN>() else {
        let smallest_excess = (MAX_FRAME_LEN + 1).to_be_bytes();
        let largest = &smallest_excess[smallest_excess.len() - PREFIX_LEN..];
        return first < largest;
    };
    let payload = &first[PREFIX_LEN..];
    length(u32::from_be_bytes(*prefix)).is_some()
        && !is_ttrpc(first)
        && payload.first().is_none_or(|byte| *byte == b'{' || byte.is_ascii_whitespace())
}

fn kind(first: &[u8], text: &str) -> ServiceKind {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|one| text.starts_with(one));
    if begins(&["SSH-"]) {
        ServiceKind::Ssh
    } else if begins(&["HTTP/", "<!DOCTYPE", "<!doctype", "<html", "<HTML"]) {
        ServiceKind::Http
    } else if begins(&["{", "["]) {
        ServiceKind::Json
    } else if text.len() >= MIN_TEXT {
        ServiceKind::Text
    } else if is_http2(first) {
        ServiceKind::Http2
    } else if is_ttrpc(first) {
        ServiceKind::Ttrpc
    } else if is_tls(first) {
        ServiceKind::Tls
    } else if is_framed(first) {
        ServiceKind::Frames
    } else {
        ServiceKind::Binary
    }
}

/// Returns the longest beginning that is printable ASCII.
fn printable(first: &[u8]) -> &str {
    let end = first.iter().position(|byte| !matches!(byte, b' '..=b'~')).unwrap_or(first.len());
    std::str::from_utf8(&first[..end]).unwrap_or_default()
}

/// Returns the length of a frame, or `None` if it is out of range.
fn length(prefix: u32) -> Option<usize> {
    usize::try_from(prefix).ok().filter(|len| (1..=MAX_FRAME_LEN).contains(len))
}

fn is_http2(first: &[u8]) -> bool {
    first.first_chunk::<HTTP2_HEADER>().is_some_and(|header| {
        HTTP2_FIRST.contains(&header[3]) && header[4] <= 1 && header[5..] == [0; 4]
    })
}

fn is_ttrpc(first: &[u8]) -> bool {
    first.first_chunk::<TTRPC_HEADER>().is_some_and(|header| {
        let [a, b, c, d, ..] = *header;
        length(u32::from_be_bytes([a, b, c, d])).is_some() && TTRPC_SENT.contains(&header[8])
    })
}

/// Reports whether the bytes are an alert or a handshake record of SSL 3.0 to TLS 1.3.
fn is_tls(first: &[u8]) -> bool {
    matches!(first, [0x15 | 0x16, 3, 0..=4, ..])
}

fn is_framed(first: &[u8]) -> bool {
    first.first_chunk::<PREFIX_LEN>().is_some_and(|prefix| {
        length(u32::from_be_bytes(*prefix)).or(length(u32::from_le_bytes(*prefix))).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode;
    use proptest::prelude::*;
    use serde_json::json;

    fn shown(first: &[u8]) -> Option<(ServiceKind, Option<String>)> {
        ForeignService::recognise(first).map(|service| (service.kind, service.excerpt))
    }

    #[test]
    fn each_service_is_recognised_by_its_first_bytes() {
        let settings = b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0";
        let unimplemented =
            b"\0\0\0\x1e\0\0\0\x01\x02\0\x0a\x1c\x08\x0c\x12\x18/x is not supported";
        for (first, kind, excerpt) in [
            (
                &b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..],
                ServiceKind::Ssh,
                Some("SSH-2.0-OpenSSH_9.2p1 Debian-2"),
            ),
            (
                b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n",
                ServiceKind::Http,
                Some("HTTP/1.1 400 Bad Request"),
            ),
            (b"<html>\r\n<head>", ServiceKind::Http, Some("<html>")),
            (b"{\"return\": {}}\n", ServiceKind::Json, Some("{\"return\": {}}")),
            (b"220 mail ESMTP\r\n", ServiceKind::Text, Some("220 mail ESMTP")),
            (b"OK\n", ServiceKind::Text, Some("OK")),
            (settings, ServiceKind::Http2, None),
            (b"\0\0\0\x04\0\0\0\0\0", ServiceKind::Http2, None),
            (b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01", ServiceKind::Http2, None),
            (unimplemented, ServiceKind::Ttrpc, None),
            // Answer to the stream id that a health check of minionsd contains.
            (b"\0\0\0\x1e{\"ty\x02\0\x0a\x1c\x08\x0c", ServiceKind::Ttrpc, None),
            (b"\x15\x03\x03\0\x02\x02\x46", ServiceKind::Tls, None),
            (b"\x10\0\0\0hello", ServiceKind::Frames, None),
            (b"\0\0\0\x05hello", ServiceKind::Frames, None),
            (b"\xff\xff\xff\xff\xff", ServiceKind::Binary, None),
            (b"\xff", ServiceKind::Binary, None),
        ] {
            assert_eq!(shown(first), Some((kind, excerpt.map(str::to_owned))), "{first:?}");
        }
    }

    #[test]
    fn no_beginning_of_a_reply_is_recognised_as_a_foreign_service() {
        let longest = "x".repeat(MAX_FRAME_LEN - 13);
        for reply in [json!({ "status": "ok" }), json!({ "status": longest })] {
            let frame = encode(&reply).unwrap();
            for len in 0..frame.len().min(100) {
                assert_eq!(ForeignService::recognise(&frame[..len]), None, "{len} bytes");
            }
        }
        assert_eq!(ForeignService::recognise(b"\0\0\0\x05 {}"), None);
    }

    #[test]
    fn an_excerpt_is_limited_and_contains_no_control_characters() {
        let long = ForeignService::recognise(&[b'x'; 10_000]).unwrap();
        assert_eq!(long.excerpt.unwrap().len(), MAX_EXCERPT);
        let escape = ForeignService::recognise(b"SSH-2.0-\x1b[31mred\x1b]0;x\x07").unwrap();
        assert_eq!(escape.to_string(), "an SSH server: \"SSH-2.0-\"");
        let quoted = ForeignService::recognise(b"say \"no\" \\\n").unwrap();
        assert_eq!(quoted.to_string(), r#"a service that sends text: "say \"no\" \\""#);
    }

    proptest! {
        #[test]
        fn any_bytes_are_described_in_printable_text(first in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(service) = ForeignService::recognise(&first) {
                prop_assert!(service.to_string().bytes().all(|byte| matches!(byte, b' '..=b'~')));
            }
        }
    }
}
