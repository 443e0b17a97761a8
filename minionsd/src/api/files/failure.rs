//! Conversion of failures of file operations to problems.

use super::super::problem::ApiError;
use crate::files::FileError;
use minions_api::{ErrorCode, Problem, VmName};
use minions_proto::file_stream::FileFailure;

impl ApiError {
    /// Converts the failure of an operation on files of `vm`.
    pub(in super::super) fn file(vm: &VmName, error: FileError) -> Self {
        let problem = match error {
            FileError::Exec(error) => return Self::exec(vm, error),
            FileError::Failed(failure) => refused(*failure),
            FileError::Malformed(error) => Problem::new(
                ErrorCode::AgentProtocolError,
                format!("the agent violated the protocol: {error}"),
            ),
            error @ FileError::NoResult(_) => {
                let mut problem = Problem::new(ErrorCode::AgentError, error.to_string());
                problem.may_have_executed = true;
                problem
            }
        };
        Self::from_problem(problem).about(vm.clone())
    }
}

/// Converts a failure that the guest reported.
fn refused(failure: FileFailure) -> Problem {
    let FileFailure { errno, path, step, message, .. } = failure;
    let mut problem = Problem::new(code(&errno), message);
    problem.errno = Some(errno);
    problem.path = Some(path);
    problem.step = Some(step);
    problem
}

/// Returns the problem code for the name of an error number.
fn code(errno: &str) -> ErrorCode {
    match errno {
        "ENOENT" => ErrorCode::FileNotFound,
        "EEXIST" => ErrorCode::FileExists,
        "ESTALE" => ErrorCode::FileChanged,
        "EACCES" | "EPERM" => ErrorCode::FileAccessDenied,
        "ENOSPC" | "EDQUOT" => ErrorCode::NoSpaceLeft,
        _ => ErrorCode::FileFailed,
    }
}
