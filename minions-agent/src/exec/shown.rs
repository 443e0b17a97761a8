//! What is told of a program, in lists and to the next agent.

use super::process::Record;
use minions_proto::message::ExecStart;
use rustix::time::{ClockId, clock_gettime};

/// Of a command line that is shown: enough to recognise it.
const MAX_SHOWN: usize = 256;
const MAX_SHOWN_ARGS: usize = 64;

/// What lists show of its request.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) user: Option<String>,
    pub(super) tty: bool,
}

impl Shown {
    pub(super) fn of(start: &ExecStart) -> Self {
        Self {
            command: cut(&start.command),
            args: start.args.iter().take(MAX_SHOWN_ARGS).map(|arg| cut(arg)).collect(),
            user: start.user.as_deref().map(cut),
            tty: start.tty.is_some(),
        }
    }

    /// What another agent has recorded, or any root program in its name.
    pub(super) fn recorded(record: &Record) -> Self {
        Self {
            command: cut(&record.command),
            args: record.args.iter().take(MAX_SHOWN_ARGS).map(|arg| cut(arg)).collect(),
            user: record.user.as_deref().map(cut),
            tty: record.tty,
        }
    }

    /// Of a program that nothing is known of.
    pub(super) fn unknown() -> Self {
        Self { command: "?".to_owned(), args: Vec::new(), user: None, tty: false }
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_SHOWN);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

/// Milliseconds since the guest's boot.
pub(super) fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1000 + nanoseconds.unwrap_or(0) / 1_000_000
}
