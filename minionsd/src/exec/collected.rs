//! All that a program wrote, at once.

use super::{Driver, Happened};
use crate::agent::CallError;
use crate::budget::Share;
use minions_proto::channel::{Ended, OutputStream};
use minions_proto::collect::{HeadTail, KeptOutput};

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) stdout: Gathered,
    pub(crate) stderr: Gathered,
    pub(crate) ended: Ended,
    /// The memory that both hold.
    pub(crate) share: Share,
}

/// One of its outputs.
#[derive(Debug)]
pub(crate) struct Gathered {
    written: HeadTail,
    keep: usize,
    /// Bytes that were gone before we came. They are the first ones: what is written while somebody
    /// follows isn't dropped.
    gone: u64,
}

/// One of its outputs as it is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Bytes that are not UTF-8 became U+FFFD; a line in the middle stands for what is missing.
    pub(crate) text: String,
    /// The bytes that the text was made of, if they are not UTF-8.
    pub(crate) bytes: Option<Vec<u8>>,
    /// Bytes really written.
    pub(crate) total: u64,
    /// Whether something is missing.
    pub(crate) truncated: bool,
}

impl Gathered {
    fn keeping(keep: usize) -> Self {
        Self { written: HeadTail::keeping(keep), keep, gone: 0 }
    }

    /// Bytes of memory that there will be with `more`, at most.
    fn needs(&self, more: usize) -> usize {
        let all = usize::try_from(self.written.total()).unwrap_or(usize::MAX);
        all.saturating_add(more).min(self.keep.saturating_mul(2))
    }

    /// As text.
    pub(crate) fn show(self) -> Shown {
        let total = self.gone.saturating_add(self.written.total());
        let kept = self.written.finish();
        let truncated = kept.missing > 0 || self.gone > 0;
        let (text, bytes) = text(kept);
        let text = if self.gone > 0 { format!("{}{text}", omitted(self.gone)) } else { text };
        Shown { text, bytes, total, truncated }
    }
}

fn omitted(bytes: u64) -> String {
    format!("\n[… {bytes} bytes omitted …]\n")
}

/// The text, and the bytes if they are no text. Without a copy where nothing is missing.
fn text(kept: KeptOutput) -> (String, Option<Vec<u8>>) {
    let KeptOutput { head, tail, missing } = kept;
    if missing == 0 {
        return match String::from_utf8(head) {
            Ok(text) => (text, None),
            Err(error) => {
                let bytes = error.into_bytes();
                (String::from_utf8_lossy(&bytes).into_owned(), Some(bytes))
            }
        };
    }
    let mut text = String::from_utf8_lossy(&head).into_owned();
    text.push_str(&omitted(missing));
    text.push_str(&String::from_utf8_lossy(&tail));
    let is_text = std::str::from_utf8(&head).is_ok() && std::str::from_utf8(&tail).is_ok();
    (text, (!is_text).then(|| [head, tail].concat()))
}

/// Follows a program to its end, and keeps so many bytes of each end of each output.
///
/// # Errors
///
/// As [`Driver::next`], and [`CallError::NoRoom`].
pub(crate) async fn collect(
    driver: &mut Driver,
    keep: usize,
    share: Share,
) -> Result<Collected, CallError> {
    let turns = driver.turns();
    turns.take(collect_in_turns(driver, keep, share)).await
}

async fn collect_in_turns(
    driver: &mut Driver,
    keep: usize,
    mut share: Share,
) -> Result<Collected, CallError> {
    let (mut stdout, mut stderr) = (Gathered::keeping(keep), Gathered::keeping(keep));
    (stdout.gone, stderr.gone) = (driver.attached().stdout, driver.attached().stderr);
    loop {
        let (stream, written, gone) = match driver.next().await? {
            Happened::Output(stream, _, bytes) => (stream, bytes, 0),
            Happened::Gap(stream, from, to) => (stream, bytes::Bytes::new(), to - from),
            Happened::Heartbeat | Happened::Told => continue,
            Happened::Ended(ended) => return Ok(Collected { stdout, stderr, ended, share }),
        };
        let (this, other) = match stream {
            OutputStream::Stdout => (&mut stdout, &stderr),
            OutputStream::Stderr => (&mut stderr, &stdout),
        };
        share.grow_to(this.needs(written.len()) + other.needs(0)).await?;
        this.written.push(&written);
        this.gone = this.gone.saturating_add(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(keep: usize, gone: u64, bytes: &[u8]) -> Shown {
        let mut gathered = Gathered { gone, ..Gathered::keeping(keep) };
        gathered.written.push(bytes);
        gathered.show()
    }

    #[test]
    fn what_fits_is_all_there_and_what_does_not_lacks_its_middle() {
        let whole = shown(3, 0, b"abcdef");
        assert_eq!((whole.text.as_str(), whole.total, whole.truncated), ("abcdef", 6, false));
        let cut = shown(2, 0, b"abcdef");
        assert_eq!(cut.text, "ab\n[… 2 bytes omitted …]\nef");
        assert_eq!((cut.total, cut.truncated, cut.bytes), (6, true, None));
        assert_eq!(shown(0, 0, b"abc").text, "\n[… 3 bytes omitted …]\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_beside_it() {
        let whole = shown(4, 0, b"a\xffb");
        assert_eq!((whole.text.as_str(), whole.bytes), ("a\u{fffd}b", Some(b"a\xffb".to_vec())));
        let cut = shown(2, 0, b"a\xff---\xfeb");
        assert_eq!(cut.bytes, Some(b"a\xff\xfeb".to_vec()));
    }

    #[test]
    fn what_was_gone_before_we_came_counts() {
        let late = shown(9, 7, b"rest");
        assert_eq!(late.text, "\n[… 7 bytes omitted …]\nrest");
        assert_eq!((late.total, late.truncated), (11, true));
    }
}
