//! `exec`: run a program, wait, collect.

use super::chain;
use crate::exec::{ExecError, Executor};
use minions_proto::message::{Exec, ExecReply};
use minions_proto::{AgentError, ErrorCode};

/// Dropping the future kills the program's process group.
pub(super) async fn answer(executor: &Executor, call: Exec) -> Result<ExecReply, AgentError> {
    executor.run(call).await.map_err(refused)
}

fn refused(error: ExecError) -> AgentError {
    let code = match error {
        ExecError::Invalid(invalid) => return invalid.into(),
        ExecError::Busy => ErrorCode::Busy,
        ExecError::NotFound { .. } => ErrorCode::CommandNotFound,
        ExecError::NotExecutable { .. } | ExecError::NoInterpreter { .. } => {
            ErrorCode::CommandNotExecutable
        }
        ExecError::Start { .. } | ExecError::NoNullDevice(_) => ErrorCode::ExecFailed,
        ExecError::Wait(_) | ExecError::Interrupted | ExecError::Encode(_) => ErrorCode::Internal,
    };
    AgentError::new(code, chain(&error)).with_errno(error.errno())
}
