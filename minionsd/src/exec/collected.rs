//! Collects the whole output of a program.

use super::driver::{DriverEvent, ExecDriver};
use super::error::ExecError;
use crate::budget::Share;
use minions_proto::channel::{Ended, OutputStream};
use minions_proto::collect::{HeadTail, KeptOutput};

/// Output and end of a program.
#[derive(Debug)]
pub(crate) struct CollectedOutput {
    pub(crate) stdout: GatheredOutput,
    pub(crate) stderr: GatheredOutput,
    pub(crate) ended: Ended,
    /// Budget share of both outputs.
    pub(crate) share: Share,
}

/// Output stream that is being collected.
#[derive(Debug)]
pub(crate) struct GatheredOutput {
    written: HeadTail,
    keep: usize,
    /// Number of bytes that the agent had dropped before the daemon attached. They are always the first ones: the agent
    /// drops nothing while a client is attached.
    gone: u64,
}

/// Output stream as shown to the caller.
#[derive(Debug)]
pub(crate) struct ShownOutput {
    /// The output as text: invalid UTF-8 is replaced by U+FFFD, and omitted bytes by a line with their number.
    pub(crate) text: String,
    /// The kept bytes, if they are not UTF-8.
    pub(crate) bytes: Option<Vec<u8>>,
    /// Number of bytes that the program wrote.
    pub(crate) total: u64,
    /// The text lacks a part of the output.
    pub(crate) truncated: bool,
}

impl GatheredOutput {
    fn keeping(keep: usize) -> Self {
        Self { written: HeadTail::keeping(keep), keep, gone: 0 }
    }

    /// Returns the upper bound of the memory in use after `more` bytes are added.
    fn needs(&self, more: usize) -> usize {
        let all = usize::try_from(self.written.total()).unwrap_or(usize::MAX);
        all.saturating_add(more).min(self.keep.saturating_mul(2))
    }

    /// Converts the output to text.
    pub(crate) fn show(self) -> ShownOutput {
        let total = self.gone.saturating_add(self.written.total());
        let kept = self.written.finish();
        let truncated = kept.missing > 0 || self.gone > 0;
        let (text, bytes) = text(kept);
        let text = if self.gone > 0 { format!("{}{text}", omitted(self.gone)) } else { text };
        ShownOutput { text, bytes, total, truncated }
    }
}

fn omitted(bytes: u64) -> String {
    format!("\n[… {bytes} bytes omitted …]\n")
}

/// Returns the text, and the bytes if they are not UTF-8. Does not copy UTF-8 output that is complete.
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

/// Follows a program to its end, and keeps the first and the last `keep` bytes of each output.
///
/// # Errors
///
/// As [`ExecDriver::next`], and [`ExecError::NoRoom`].
pub(crate) async fn collect(
    driver: &mut ExecDriver,
    keep: usize,
    share: Share,
) -> Result<CollectedOutput, ExecError> {
    let turns = driver.turns();
    turns.take(collect_in_turns(driver, keep, share)).await
}

async fn collect_in_turns(
    driver: &mut ExecDriver,
    keep: usize,
    mut share: Share,
) -> Result<CollectedOutput, ExecError> {
    let mut stdout =
        GatheredOutput { gone: driver.attached().stdout, ..GatheredOutput::keeping(keep) };
    let mut stderr =
        GatheredOutput { gone: driver.attached().stderr, ..GatheredOutput::keeping(keep) };
    loop {
        let (stream, written, gone) = match driver.next().await? {
            DriverEvent::Output(stream, _, bytes) => (stream, bytes, 0),
            DriverEvent::Gap(stream, from, to) => (stream, bytes::Bytes::new(), to - from),
            DriverEvent::Heartbeat | DriverEvent::InputTaken | DriverEvent::Told => continue,
            DriverEvent::Ended(ended) => {
                return Ok(CollectedOutput { stdout, stderr, ended, share });
            }
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

    fn shown(keep: usize, gone: u64, bytes: &[u8]) -> ShownOutput {
        let mut gathered = GatheredOutput { gone, ..GatheredOutput::keeping(keep) };
        gathered.written.push(bytes);
        gathered.show()
    }

    #[test]
    fn output_beyond_the_limit_lacks_its_middle() {
        let whole = shown(3, 0, b"abcdef");
        assert_eq!((whole.text.as_str(), whole.total, whole.truncated), ("abcdef", 6, false));
        let cut = shown(2, 0, b"abcdef");
        assert_eq!(cut.text, "ab\n[… 2 bytes omitted …]\nef");
        assert_eq!((cut.total, cut.truncated, cut.bytes), (6, true, None));
        assert_eq!(shown(0, 0, b"abc").text, "\n[… 3 bytes omitted …]\n");
    }

    #[test]
    fn output_that_is_not_utf8_is_also_kept_as_bytes() {
        let whole = shown(4, 0, b"a\xffb");
        assert_eq!((whole.text.as_str(), whole.bytes), ("a\u{fffd}b", Some(b"a\xffb".to_vec())));
        let cut = shown(2, 0, b"a\xff---\xfeb");
        assert_eq!(cut.bytes, Some(b"a\xff\xfeb".to_vec()));
    }

    #[test]
    fn output_dropped_before_attaching_is_counted_as_omitted() {
        let late = shown(9, 7, b"rest");
        assert_eq!(late.text, "\n[… 7 bytes omitted …]\nrest");
        assert_eq!((late.total, late.truncated), (11, true));
    }
}
