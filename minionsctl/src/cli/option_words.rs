//! Options among the words of a command line, before clap parses them: which words are options, and which are their
//! values.

use clap::{ArgAction, Command};
use std::ffi::{OsStr, OsString};

/// An option word, as the grammar of a command describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OptionWord {
    /// Ids of the options in the word: several for `-it`.
    pub(super) ids: Vec<String>,
    /// True if the next word is the value.
    pub(super) takes_next: bool,
    /// Value in the word itself: `--user=eve`, `-ueve`.
    pub(super) attached: Option<String>,
}

impl OptionWord {
    /// Parses a word that starts with a dash. Returns `None` if the command has no such option.
    pub(super) fn parse(command: &Command, word: &OsStr) -> Option<Self> {
        let word = word.to_str()?;
        match word.strip_prefix("--") {
            Some(long) => Self::long(command, long),
            None => Self::shorts(command, word.strip_prefix('-')?),
        }
    }

    fn long(command: &Command, word: &str) -> Option<Self> {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name))?;
        let takes_next = takes_value(arg.get_action()) && attached.is_none();
        Some(Self { ids: vec![arg.get_id().to_string()], takes_next, attached })
    }

    fn shorts(command: &Command, word: &str) -> Option<Self> {
        let mut ids = Vec::new();
        let mut letters = word.chars();
        while let Some(letter) = letters.next() {
            let arg = command.get_arguments().find(|arg| arg.get_short() == Some(letter))?;
            ids.push(arg.get_id().to_string());
            if takes_value(arg.get_action()) {
                let value = letters.as_str();
                let attached = value.strip_prefix('=').unwrap_or(value).to_owned();
                let attached = (!value.is_empty()).then_some(attached);
                return Some(Self { ids, takes_next: attached.is_none(), attached });
            }
        }
        (!ids.is_empty()).then_some(Self { ids, takes_next: false, attached: None })
    }
}

fn takes_value(action: &ArgAction) -> bool {
    action.takes_values()
}

/// Reports whether a word is an option or a cluster of options; `-` alone is an argument.
pub(super) fn is_option(word: &OsString) -> bool {
    let bytes = word.as_encoded_bytes();
    bytes.len() > 1 && bytes[0] == b'-'
}
