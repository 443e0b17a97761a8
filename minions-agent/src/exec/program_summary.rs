//! Description of a program, for lists and for the next agent.

use super::process::ProgramRecord;
use minions_proto::message::ExecStart;

/// Longest part of a command, an argument or a user that is shown, in bytes: enough to recognise it.
const MAX_SHOWN: usize = 256;
/// Limit of arguments that are shown.
const MAX_SHOWN_ARGS: usize = 64;

/// The parts of a request that lists show, each truncated.
#[derive(Debug)]
pub(super) struct ProgramSummary {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) user: Option<String>,
    pub(super) tty: bool,
}

impl ProgramSummary {
    pub(super) fn of(start: &ExecStart) -> Self {
        Self {
            command: cut(&start.command),
            args: start.args.iter().take(MAX_SHOWN_ARGS).map(|arg| cut(arg)).collect(),
            user: start.user.as_deref().map(cut),
            tty: start.tty.is_some(),
        }
    }

    /// Truncates a record again: it may come from another agent version, or from any program of root's.
    pub(super) fn recorded(record: &ProgramRecord) -> Self {
        Self {
            command: cut(&record.command),
            args: record.args.iter().take(MAX_SHOWN_ARGS).map(|arg| cut(arg)).collect(),
            user: record.user.as_deref().map(cut),
            tty: record.tty,
        }
    }

    /// Returns the description of a program without a record.
    pub(super) fn unknown() -> Self {
        Self { command: "?".to_owned(), args: Vec::new(), user: None, tty: false }
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_SHOWN);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}
