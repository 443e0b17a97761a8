//! Shortening of a program's two output streams so that they fit one frame.
//!
//! The limit of a frame, 1 MiB, applies to the *encoded* text, and a control character is encoded in six bytes:
//! output that was kept in memory may still be far too long. Each stream gets half of the room; room that one
//! stream does not need goes to the other.

use super::json_text;
use minions_proto::collect::KeptOutput;
use minions_proto::frame::{EncodeError, MAX_FRAME_LEN, PREFIX_LEN};
use minions_proto::message::{ExecReply, encode_reply};

/// Room for the line that marks omitted output: 48 bytes encoded, with a 20-digit number.
const MARKER_COST: usize = 64;

/// Adds the text of both streams to `reply`, which is otherwise complete.
pub(super) fn fit(
    reply: ExecReply,
    stdout: KeptOutput,
    stderr: KeptOutput,
) -> Result<ExecReply, EncodeError> {
    let envelope = encode_reply(&reply)?.len() - PREFIX_LEN;
    let (for_stdout, for_stderr) =
        share(MAX_FRAME_LEN - envelope, wanted(&stdout), wanted(&stderr));
    let (stdout, stdout_truncated) = text(stdout, for_stdout);
    let (stderr, stderr_truncated) = text(stderr, for_stderr);
    Ok(ExecReply {
        stdout,
        stderr,
        // Never longer than the `false` that the envelope was measured with.
        stdout_truncated: Some(stdout_truncated),
        stderr_truncated: Some(stderr_truncated),
        ..reply
    })
}

/// Divides `room` between two streams that need `a` and `b`.
fn share(room: usize, a: usize, b: usize) -> (usize, usize) {
    let half = room / 2;
    if a + b <= room {
        (a, b)
    } else if a <= half {
        (a, room - a)
    } else if b <= half {
        (room - b, b)
    } else {
        (half, room - half)
    }
}

/// Returns the encoded length of a stream if no more of it is cut.
fn wanted(kept: &KeptOutput) -> usize {
    let marker = if kept.missing > 0 { MARKER_COST } else { 0 };
    json_text::cost(&kept.head) + marker + json_text::cost(&kept.tail)
}

/// Returns a stream as text that costs at most `budget`, and whether output is missing from it.
fn text(kept: KeptOutput, budget: usize) -> (String, bool) {
    if kept.missing == 0 && json_text::cost(&kept.head) <= budget {
        return (lossy(kept.head), false);
    }
    let total = kept.head.len() as u64 + kept.missing + kept.tail.len() as u64;
    let room = budget.saturating_sub(MARKER_COST);
    let tail = if kept.missing == 0 { &kept.head } else { &kept.tail };
    let (head, spent) = json_text::prefix(&kept.head, room - json_text::cost(tail).min(room / 2));
    let tail = json_text::suffix(tail, room - spent);
    let missing = total - (head.len() + tail.len()) as u64;
    let mut text = String::from_utf8_lossy(head).into_owned();
    text.push_str(&format!("\n[… {missing} bytes omitted …]\n"));
    text.push_str(&String::from_utf8_lossy(tail));
    (text, true)
}

/// Converts bytes to text; without a copy if they are UTF-8.
fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::collect::HeadTail;
    use minions_proto::message::Outcome;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn reply(stdout: &[u8], stderr: &[u8]) -> (ExecReply, usize) {
        let empty = ExecReply {
            exit_code: 0,
            stdout: String::new(),
            stderr: String::new(),
            stdout_bytes: Some(stdout.len() as u64),
            stderr_bytes: Some(stderr.len() as u64),
            stdout_truncated: Some(false),
            stderr_truncated: Some(false),
            outcome: Some(Outcome::Signaled { signal: 11, core: true, reason: None }),
            duration_ms: Some(u64::MAX),
        };
        let kept = |bytes: &[u8]| {
            let mut buffer = HeadTail::keeping(MAX_FRAME_LEN / 2);
            buffer.push(bytes);
            buffer.finish()
        };
        let reply = fit(empty, kept(stdout), kept(stderr)).unwrap();
        let len = encode_reply(&reply).unwrap().len() - PREFIX_LEN;
        (reply, len)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_bytes_fit_a_frame(
            out in vec(any::<u8>(), 1..40), out_times in 0_usize..30_000,
            err in vec(any::<u8>(), 1..40), err_times in 0_usize..30_000,
        ) {
            let (stdout, stderr) = (out.repeat(out_times), err.repeat(err_times));
            // `reply` panics if the result is longer than a frame.
            let (reply, len) = reply(&stdout, &stderr);
            let cut = reply.stdout_truncated == Some(true) || reply.stderr_truncated == Some(true);
            let whole = reply.stdout == String::from_utf8_lossy(&stdout)
                && reply.stderr == String::from_utf8_lossy(&stderr);
            prop_assert_eq!(cut, !whole);
            // Nothing is cut while there is room for it.
            prop_assert!(!cut || len > MAX_FRAME_LEN - 256, "cut to {len}");
        }
    }

    #[test]
    fn a_stream_may_use_the_room_that_the_other_does_not_need() {
        let (reply, _) = reply(&vec![b'x'; 900_000], &vec![b'y'; 100_000]);
        assert_eq!((reply.stdout.len(), reply.stderr.len()), (900_000, 100_000));
        assert_eq!((reply.stdout_truncated, reply.stderr_truncated), (Some(false), Some(false)));
    }

    #[test]
    fn two_long_streams_get_half_of_the_room_each() {
        let (reply, len) = reply(&vec![b'x'; 3_000_000], &vec![0; 3_000_000]);
        assert!(len > MAX_FRAME_LEN - 256, "{len}");
        assert!(reply.stdout.len().abs_diff(MAX_FRAME_LEN / 2) < 1024, "{}", reply.stdout.len());
        assert!(reply.stderr.len().abs_diff(MAX_FRAME_LEN / 12) < 1024, "{}", reply.stderr.len());
    }

    #[test]
    fn the_marker_states_the_number_of_omitted_bytes() {
        let stream: Vec<u8> = (0..300_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let (reply, _) = reply(&stream, b"");
        let text = reply.stdout;
        assert!(text.starts_with("0\n1\n2\n") && text.ends_with("299998\n299999\n"));
        let (head, rest) = text.split_once("\n[… ").unwrap();
        let (missing, tail) = rest.split_once(" bytes omitted …]\n").unwrap();
        let missing: usize = missing.parse().unwrap();
        assert_eq!(head.len() + missing + tail.len(), stream.len());
    }
}
