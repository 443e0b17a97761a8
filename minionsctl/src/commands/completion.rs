//! `minionsctl completion`: prints the script that completes the words of minionsctl in a shell.

use crate::cli::CompletionShell;
use crate::completion::script;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::write_to;
use minions_proto::channel::OutputStream;

pub(super) fn run(shell: CompletionShell) -> Result<ExitStatus, Failure> {
    write_to(OutputStream::Stdout, script(shell).as_bytes()).map_err(Failure::Output)?;
    Ok(ExitStatus::Success)
}
