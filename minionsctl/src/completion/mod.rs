//! Completion of words in bash, zsh and fish.
//!
//! # Layout
//!
//! * [`registration`]: the scripts that make a shell run minionsctl at Tab, with [`VARIABLE`] set and the typed words
//!   as arguments.
//! * [`typed_line`]: the typed words, as each shell passes them.
//! * [`grammar`]: the command line grammar, in which each argument has the source of its values.
//! * [`sources`]: values from the daemon, its agents and the user's contexts. [`guest_files`]: files of guests.
//!   [`line_client`]: calls with a common deadline.
//! * [`candidates`]: bounds and filters. [`reply`]: candidates as each shell reads them.
//!
//! The engine is that of clap_complete. Its scripts are not used: bash splits `VM:/PATH` into three words, and zsh adds
//! a space after it.

mod candidates;
mod grammar;
mod guest_files;
mod line_client;
mod registration;
mod reply;
mod sources;
mod typed_line;

pub(crate) use registration::script;

use crate::cli::{Cli, CompletionShell, PartialLine};
use crate::exit::ExitStatus;
use crate::output::{to_stderr, write_to};
use clap::{CommandFactory, ValueEnum};
use clap_complete::engine::complete;
use minions_proto::channel::OutputStream;
use sources::CompletionSources;
use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use typed_line::TypedLine;

/// Variable with the name of the shell that asks for candidates. Without it, minionsctl runs a command.
const VARIABLE: &str = "MINIONSCTL_COMPLETE";

/// Prints candidates if a shell asks for them; otherwise returns `None`. Only a wrong name of a shell is reported: a
/// message at Tab would overwrite what the user types.
pub(crate) fn answer() -> Option<ExitCode> {
    let name = env::var_os(VARIABLE).filter(|name| !name.is_empty())?;
    let known = name.to_str().map(|name| CompletionShell::from_str(name, false));
    let Some(Ok(shell)) = known else {
        to_stderr(&format!("error: {VARIABLE} is {name:?}: must be bash, zsh or fish"));
        return Some(ExitStatus::Failure.into());
    };
    let words = env::args_os().skip(1).skip_while(|word| word != "--").skip(1).collect();
    let text = TypedLine::new(shell, words).and_then(candidates_for).unwrap_or_default();
    // A shell that has closed the pipe needs no candidates.
    let _ = write_to(OutputStream::Stdout, text.as_bytes());
    Some(ExitStatus::Success.into())
}

/// Returns the candidates for the last word, in the form that the shell reads.
fn candidates_for(line: TypedLine) -> Option<String> {
    let mut plain = Cli::command();
    plain.build();
    let partial = PartialLine::parse(&plain, line.words())?;
    if partial.is_of_program {
        return None;
    }
    let mut grammar = grammar::with_sources(&Arc::new(CompletionSources::new(partial)));
    let words: Vec<OsString> = line.words().to_vec();
    let last = words.len() - 1;
    let directory = env::current_dir().ok();
    let found = complete(&mut grammar, words, last, directory.as_deref()).ok()?;
    Some(reply::text(&line, candidates::selected(found, line.typed())))
}
