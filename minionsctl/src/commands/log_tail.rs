//! The last lines of a program's output, for `logs --tail`.

use std::collections::VecDeque;

/// Largest amount of output that is kept while the last lines are searched, in bytes. An agent keeps less.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// Last bytes of one stream.
#[derive(Debug, Default)]
pub(super) struct OutputTail {
    kept: VecDeque<u8>,
}

impl OutputTail {
    /// Appends output; drops the oldest bytes beyond the limit.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let surplus = self.kept.len().saturating_sub(MAX_KEPT);
        self.kept.drain(..surplus);
    }

    /// Returns the last `lines` lines. An incomplete last line counts as a line.
    pub(super) fn last(mut self, lines: usize) -> Vec<u8> {
        let kept = self.kept.make_contiguous();
        let complete = kept.strip_suffix(b"\n").unwrap_or(kept);
        let mut ends = complete.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        let start = match lines.checked_sub(1) {
            None => kept.len(),
            Some(before) => ends.nth(before).map_or(0, |(at, _)| at + 1),
        };
        kept[start..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_across_chunks() {
        for (chunks, lines, last) in [
            (&["a\nb", "b\nc\n"][..], 2, "bb\nc\n"),
            (&["a\nb\n"], 1, "b\n"),
            (&["a\nb"], 1, "b"),
            (&["a\nb"], 9, "a\nb"),
            (&["a\n\n\n"], 2, "\n\n"),
            (&["a\n"], 0, ""),
            (&[], 3, ""),
        ] {
            let mut tail = OutputTail::default();
            chunks.iter().for_each(|chunk| tail.push(chunk.as_bytes()));
            assert_eq!(tail.last(lines), last.as_bytes(), "{chunks:?} {lines}");
        }
    }

    #[test]
    fn only_the_newest_output_is_kept() {
        let mut tail = OutputTail::default();
        tail.push(&vec![b'x'; MAX_KEPT]);
        tail.push(b"\nend\n");
        assert_eq!(tail.kept.len(), MAX_KEPT);
        assert_eq!(tail.last(1), b"end\n");
    }
}
