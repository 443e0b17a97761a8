//! `~.` and its like, as in ssh: the way out of a terminal in which every key is the program's.

use bytes::{Bytes, BytesMut};

/// What `~?` shows.
pub(crate) const HELP: [&str; 4] =
    ["Escapes, at the beginning of a line:", "  ~.  disconnect", "  ~~  send a ~", "  ~?  this"];

/// What typed bytes amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// For the program.
    Input(Bytes),
    /// `~.`
    Leave,
    /// `~?`
    Help,
}

/// Where in a line the typing has got to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Escapes {
    /// At its beginning.
    #[default]
    LineStart,
    /// Behind a `~` at its beginning, which nobody has seen yet.
    Tilde,
    /// Further on.
    Inside,
}

impl Escapes {
    /// Takes what was typed, in whatever pieces it comes.
    pub(crate) fn typed(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut all = Vec::new();
        let mut input = BytesMut::new();
        for &byte in bytes {
            let command = match (*self, byte) {
                (Self::LineStart, b'~') => {
                    *self = Self::Tilde;
                    continue;
                }
                (Self::Tilde, b'.') => Some(Typed::Leave),
                (Self::Tilde, b'?') => Some(Typed::Help),
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

fn push(all: &mut Vec<Typed>, input: &mut BytesMut) {
    if !input.is_empty() {
        all.push(Typed::Input(input.split().freeze()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the program gets, with commands between brackets.
    fn seen(pieces: &[&[u8]]) -> String {
        let mut escapes = Escapes::default();
        let all = pieces.iter().flat_map(|piece| escapes.typed(piece));
        all.map(|typed| match typed {
            Typed::Input(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Typed::Leave => "[leave]".into(),
            Typed::Help => "[help]".into(),
        })
        .collect()
    }

    #[test]
    fn an_escape_counts_at_the_beginning_of_a_line_only() {
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
            assert_eq!(seen(&[typed.as_bytes()]), meant, "{typed:?}");
        }
    }

    #[test]
    fn a_tilde_waits_for_what_it_means() {
        assert_eq!(seen(&[b"~"]), "");
        assert_eq!(seen(&[b"~", b"."]), "[leave]");
        assert_eq!(seen(&[b"~", b"a"]), "~a");
    }

    proptest! {
        #[test]
        fn any_chunking_means_the_same(typed in "[~.?a\r\n]{0,20}", cut in 0_usize..20) {
            let cut = cut.min(typed.len());
            let (left, right) = typed.as_bytes().split_at(cut);
            prop_assert_eq!(seen(&[left, right]), seen(&[typed.as_bytes()]));
        }
    }
}
