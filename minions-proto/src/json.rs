//! JSON from a peer, with a limit on its depth, and JSON for a peer.
//!
//! serde_json limits the depth of the values that it keeps, but skips the value of an unknown field
//! at any depth. So the depth is checked before parsing, in one pass that allocates nothing.

use serde::de::Error;
use serde::{Deserialize, Serialize};
use std::io;

/// Deepest nesting of lists and objects; equals serde_json's own limit.
pub const MAX_DEPTH: usize = 127;

/// Error of JSON that nests deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("JSON nests more than {MAX_DEPTH} deep")]
pub struct JsonTooDeep;

/// Parses `text`.
///
/// # Errors
///
/// The errors of serde_json, and an error if `text` is [too deep](JsonTooDeep).
pub fn from_slice<'de, T: Deserialize<'de>>(text: &'de [u8]) -> serde_json::Result<T> {
    check_depth(text).map_err(serde_json::Error::custom)?;
    serde_json::from_slice(text)
}

/// Encodes `value`.
///
/// Uses the writer of frames: each further type of writer would bring another copy of the code of each type that is
/// encoded.
///
/// # Errors
///
/// The value contains something that JSON cannot represent.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut sink = JsonSink::bounded(usize::MAX);
    serde_json::to_writer(&mut sink, value)?;
    Ok(sink.bytes)
}

/// Buffer that refuses to grow beyond a length.
pub(crate) struct JsonSink {
    pub(crate) bytes: Vec<u8>,
    /// True if something did not fit.
    pub(crate) has_overflowed: bool,
    most: usize,
}

impl JsonSink {
    /// Creates a buffer for at most `most` bytes.
    pub(crate) fn bounded(most: usize) -> Self {
        Self { bytes: Vec::new(), has_overflowed: false, most }
    }
}

impl io::Write for JsonSink {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.write_all(chunk).map(|()| chunk.len())
    }

    fn write_all(&mut self, chunk: &[u8]) -> io::Result<()> {
        if chunk.len() > self.most - self.bytes.len() {
            self.has_overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks the depth of `text`, which need not be valid JSON.
///
/// # Errors
///
/// [`JsonTooDeep`].
pub fn check_depth(text: &[u8]) -> Result<(), JsonTooDeep> {
    let (mut depth, mut in_string, mut bytes) = (0_usize, false, text.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            // Skips the escaped character, which may be a quote.
            b'\\' if in_string => _ = bytes.next(),
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(JsonTooDeep);
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use serde_json::Value;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn skipped_and_kept_values_have_the_same_depth_limit() {
        for (depth, fits) in
            [(1, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false), (400_000, false)]
        {
            let text = nested(depth);
            assert_eq!(from_slice::<IgnoredAny>(text.as_bytes()).is_ok(), fits, "{depth} skipped");
            assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), fits, "{depth} kept");
        }
        let mixed = "{\"a\":[".repeat(MAX_DEPTH) + "1";
        assert_eq!(check_depth(mixed.as_bytes()), Err(JsonTooDeep));
    }

    #[test]
    fn siblings_and_brackets_in_strings_do_not_add_depth() {
        check_depth("[]".repeat(1_000).as_bytes()).unwrap();
        let text = format!(r#"{{"a":"{}","b\"":"\\","c":[]}}"#, "[".repeat(1_000));
        check_depth(text.as_bytes()).unwrap();
        let after_string = format!(r#"["\\",{}]"#, nested(MAX_DEPTH));
        assert_eq!(check_depth(after_string.as_bytes()), Err(JsonTooDeep));
    }

    proptest! {
        #[test]
        fn depth_check_accepts_what_a_parser_accepts(text in r#"[\[\]{}",:\\a1 ]{0,60}"#) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert!(depth_of(&value) <= MAX_DEPTH);
                prop_assert!(check_depth(text.as_bytes()).is_ok());
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(text in any::<Vec<u8>>()) {
            let _ = check_depth(&text);
        }
    }

    fn depth_of(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(depth_of).max().unwrap_or(0),
            Value::Object(values) => 1 + values.values().map(depth_of).max().unwrap_or(0),
            _ => 0,
        }
    }
}
