//! Escapes such as `~.`, as in ssh: the way out of a terminal that passes every key on to the program.

use bytes::{Bytes, BytesMut};

/// Lines that `~?` prints.
pub(crate) const HELP: [&str; 4] = [
    "Escapes, at the beginning of a line:",
    "  ~.  disconnect",
    "  ~~  send a ~",
    "  ~?  print this help",
];

/// Meaning of typed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TypedInput {
    /// Bytes for the program.
    Input(Bytes),
    /// The escape `~.`: disconnect.
    Leave,
    /// The escape `~?`: print [`HELP`].
    Help,
}

/// State of the escape parser: the position in the typed line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EscapeParser {
    /// At the beginning of a line.
    #[default]
    LineStart,
    /// A `~` was typed at the beginning of a line, and is held back.
    Tilde,
    /// Anywhere else in a line.
    Inside,
}

impl EscapeParser {
    /// Parses typed bytes. Any chunking gives the same result.
    pub(crate) fn typed(&mut self, bytes: &[u8]) -> Vec<TypedInput> {
        let mut all = Vec::new();
        let mut input = BytesMut::new();
        for &byte in bytes {
            let command = match (*self, byte) {
                (Self::LineStart, b'~') => {
                    *self = Self::Tilde;
                    continue;
                }
                (Self::Tilde, b'.') => Some(TypedInput::Leave),
                (Self::Tilde, b'?') => Some(TypedInput::Help),
                (Self::Tilde, b'~') | (Self::LineStart | Self::Inside, _) => None,
                (Self::Tilde, _) => {
                    input.extend_from_slice(b"~");
                    None
                }
            };
            if let Some(command) = command {
                *self = Self::LineStart;
                push(&mut all, &mut input);
                all.push(command);
                continue;
            }
            *self = if matches!(byte, b'\r' | b'\n') { Self::LineStart } else { Self::Inside };
            input.extend_from_slice(&[byte]);
        }
        push(&mut all, &mut input);
        all
    }
}

fn push(all: &mut Vec<TypedInput>, input: &mut BytesMut) {
    if !input.is_empty() {
        all.push(TypedInput::Input(input.split().freeze()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parses the pieces, and returns the program's input with escapes in brackets.
    fn parsed(pieces: &[&[u8]]) -> String {
        let mut escapes = EscapeParser::default();
        let all = pieces.iter().flat_map(|piece| escapes.typed(piece));
        all.map(|typed| match typed {
            TypedInput::Input(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            TypedInput::Leave => "[leave]".into(),
            TypedInput::Help => "[help]".into(),
        })
        .collect()
    }

    #[test]
    fn an_escape_is_recognized_at_the_beginning_of_a_line_only() {
        for (typed, meant) in [
            ("~.", "[leave]"),
            ("ls\r~.", "ls\r[leave]"),
            ("ls\n~?x", "ls\n[help]x"),
            ("~~.", "~."),
            ("~~~.", "~~."),
            ("a~.", "a~."),
            ("~x~.", "~x~."),
            ("~\r~.", "~\r[leave]"),
            ("~?~.", "[help][leave]"),
            ("cd ~/x\r", "cd ~/x\r"),
        ] {
            assert_eq!(parsed(&[typed.as_bytes()]), meant, "{typed:?}");
        }
    }

    #[test]
    fn a_tilde_is_held_back_until_the_next_key() {
        assert_eq!(parsed(&[b"~"]), "");
        assert_eq!(parsed(&[b"~", b"."]), "[leave]");
        assert_eq!(parsed(&[b"~", b"a"]), "~a");
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_result(typed in "[~.?a\r\n]{0,20}", cut in 0_usize..20) {
            let cut = cut.min(typed.len());
            let (left, right) = typed.as_bytes().split_at(cut);
            prop_assert_eq!(parsed(&[left, right]), parsed(&[typed.as_bytes()]));
        }
    }
}
