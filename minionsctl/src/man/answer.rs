//! The request to write the pages.

use crate::exit::ExitStatus;
use crate::output::to_stderr;
use manual::files;
use std::env;
use std::process::ExitCode;

/// Writes the pages if the command line asks for it.
pub(crate) fn answer() -> Option<ExitCode> {
    let request = files::asked(env::args_os().skip(1))?;
    let written =
        super::pages(&request.date).and_then(|pages| files::write(&request.directory, &pages));
    Some(match written {
        Ok(()) => ExitStatus::Success.into(),
        Err(error) => {
            to_stderr(&format!("error: cannot write the manual pages: {error}"));
            ExitStatus::Failure.into()
        }
    })
}
