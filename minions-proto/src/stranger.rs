//! Services other than an agent, recognised by the first bytes that they send.
//!
//! An agent's first bytes are a frame: a length of at most 1 MiB (so the first byte is zero) and a JSON object.
//! Whatever begins otherwise comes from a service that has the agent's port instead.

use crate::frame::{MAX_FRAME_LEN, PREFIX_LEN};
use std::fmt;

/// The most bytes that are looked at.
pub const LOOKED_AT: usize = 64;

/// The most characters of text that are repeated.
const MAX_EXCERPT: usize = 48;

/// Fewer bytes than this are no text: they may as well be a number.
const MIN_TEXT: usize = 2;

/// Header of an HTTP/2 frame (RFC 9113, section 4.1): length (3 bytes), type, flags, stream.
const HTTP2_HEADER: usize = 9;

/// Frames that a server sends first, on stream 0: SETTINGS, or GOAWAY.
const HTTP2_FIRST: [u8; 2] = [4, 7];

/// Header of a TTRPC message: length (4 bytes), stream (4 bytes), type, flags.
const TTRPC_HEADER: usize = 10;

/// Messages that a TTRPC server sends: a response, or data of a stream.
const TTRPC_SENT: [u8; 2] = [2, 3];

/// A service that is not an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its protocol.
    pub kind: Kind,
    /// The beginning of its first line, if that is printable ASCII.
    pub excerpt: Option<String>,
}

/// A protocol that is not the agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RFC 4253: the server begins with its version.
    Ssh,
    /// HTTP/1, or a page without a head.
    Http,
    /// HTTP/2, which gRPC uses.
    Http2,
    /// TTRPC, which agents of containers use.
    Ttrpc,
    /// A TLS record.
    Tls,
    /// JSON without a length before it.
    Json,
    /// Text of another kind.
    Text,
    /// Messages with a length before them that are not JSON, or whose length has another byte order.
    Frames,
    /// None of these.
    Binary,
}

impl Kind {
    /// Completes the sentence "it looks like …".
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

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match &self.excerpt {
            Some(excerpt) => write!(f, ": {excerpt:?}"),
            None => Ok(()),
        }
    }
}

impl Stranger {
    /// Recognises a service by its first bytes, of which at most [`LOOKED_AT`] are looked at. `None` if they may
    /// begin an agent's reply, or are too few.
    #[must_use]
    pub fn recognise(first: &[u8]) -> Option<Self> {
        let first = first.get(..LOOKED_AT).unwrap_or(first);
        if may_be_reply(first) {
            return None;
        }
        let text = printable(first);
        let kind = kind(first, text);
        let shown = match kind {
            Kind::Ssh | Kind::Http | Kind::Json | Kind::Text => Some(text),
            Kind::Http2 | Kind::Ttrpc | Kind::Tls | Kind::Frames | Kind::Binary => None,
        };
        let excerpt = shown.filter(|text| !text.is_empty());
        Some(Self { kind, excerpt: excerpt.map(|text| text.chars().take(MAX_EXCERPT).collect()) })
    }
}

/// Whether an agent's frame can begin with these bytes.
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

fn kind(first: &[u8], text: &str) -> Kind {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|one| text.starts_with(one));
    if begins(&["SSH-"]) {
        Kind::Ssh
    } else if begins(&["HTTP/", "<!DOCTYPE", "<!doctype", "<html", "<HTML"]) {
        Kind::Http
    } else if begins(&["{", "["]) {
        Kind::Json
    } else if text.len() >= MIN_TEXT {
        Kind::Text
    } else if is_http2(first) {
        Kind::Http2
    } else if is_ttrpc(first) {
        Kind::Ttrpc
    } else if is_tls(first) {
        Kind::Tls
    } else if is_framed(first) {
        Kind::Frames
    } else {
        Kind::Binary
    }
}

/// The beginning that is printable ASCII.
fn printable(first: &[u8]) -> &str {
    let end = first.iter().position(|byte| !matches!(byte, b' '..=b'~')).unwrap_or(first.len());
    std::str::from_utf8(&first[..end]).unwrap_or_default()
}

/// The length of a frame, if a frame can have it.
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

/// An alert or a handshake, of SSL 3.0 to TLS 1.3.
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

    fn shown(first: &[u8]) -> Option<(Kind, Option<String>)> {
        Stranger::recognise(first).map(|stranger| (stranger.kind, stranger.excerpt))
    }

    #[test]
    fn each_service_is_recognised_by_its_first_bytes() {
        let settings = b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0";
        let unimplemented =
            b"\0\0\0\x1e\0\0\0\x01\x02\0\x0a\x1c\x08\x0c\x12\x18/x is not supported";
        for (first, kind, excerpt) in [
            (
                &b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..],
                Kind::Ssh,
                Some("SSH-2.0-OpenSSH_9.2p1 Debian-2"),
            ),
            (
                b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n",
                Kind::Http,
                Some("HTTP/1.1 400 Bad Request"),
            ),
            (b"<html>\r\n<head>", Kind::Http, Some("<html>")),
            (b"{\"return\": {}}\n", Kind::Json, Some("{\"return\": {}}")),
            (b"220 mail ESMTP\r\n", Kind::Text, Some("220 mail ESMTP")),
            (b"OK\n", Kind::Text, Some("OK")),
            (settings, Kind::Http2, None),
            (b"\0\0\0\x04\0\0\0\0\0", Kind::Http2, None),
            (b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01", Kind::Http2, None),
            (unimplemented, Kind::Ttrpc, None),
            // To the stream that a health check of ours looks like.
            (b"\0\0\0\x1e{\"ty\x02\0\x0a\x1c\x08\x0c", Kind::Ttrpc, None),
            (b"\x15\x03\x03\0\x02\x02\x46", Kind::Tls, None),
            (b"\x10\0\0\0hello", Kind::Frames, None),
            (b"\0\0\0\x05hello", Kind::Frames, None),
            (b"\xff\xff\xff\xff\xff", Kind::Binary, None),
            (b"\xff", Kind::Binary, None),
        ] {
            assert_eq!(shown(first), Some((kind, excerpt.map(str::to_owned))), "{first:?}");
        }
    }

    #[test]
    fn no_beginning_of_a_reply_is_a_strangers() {
        let longest = "x".repeat(MAX_FRAME_LEN - 13);
        for reply in [json!({ "status": "ok" }), json!({ "status": longest })] {
            let frame = encode(&reply).unwrap();
            for len in 0..frame.len().min(100) {
                assert_eq!(Stranger::recognise(&frame[..len]), None, "{len} bytes");
            }
        }
        assert_eq!(Stranger::recognise(b"\0\0\0\x05 {}"), None);
    }

    #[test]
    fn an_excerpt_has_a_bound_and_nothing_that_a_terminal_obeys() {
        let long = Stranger::recognise(&[b'x'; 10_000]).unwrap();
        assert_eq!(long.excerpt.unwrap().len(), MAX_EXCERPT);
        let escape = Stranger::recognise(b"SSH-2.0-\x1b[31mred\x1b]0;x\x07").unwrap();
        assert_eq!(escape.to_string(), "an SSH server: \"SSH-2.0-\"");
        let quoted = Stranger::recognise(b"say \"no\" \\\n").unwrap();
        assert_eq!(quoted.to_string(), r#"a service that sends text: "say \"no\" \\""#);
    }

    proptest! {
        #[test]
        fn any_bytes_are_described_in_printable_text(first in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(stranger) = Stranger::recognise(&first) {
                prop_assert!(stranger.to_string().bytes().all(|byte| matches!(byte, b' '..=b'~')));
            }
        }
    }
}
