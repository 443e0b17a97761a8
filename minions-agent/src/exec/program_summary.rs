//! Description of a program, for lists and for the next agent.

use super::process::ProgramRecord;
use minions_proto::message::ExecStart;

/// Maximum length of a shown command, argument or user name, in bytes: enough to recognise it.
const MAX_SHOWN: usize = 256;
/// Maximum number of shown arguments.
const MAX_SHOWN_ARGS: usize = 64;

/// The parts of a request that a list of execs shows, each truncated.
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

    /// Returns the description in a record, truncated again: another version of the agent, or any program that runs
    /// as root, may have written the record.
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
