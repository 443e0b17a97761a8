//! Requests about programs: the base `exec`, and execs as objects.

use crate::error_chain;
use crate::exec::{AttachResult, ExecError, ExecRefusal, ExecTail, Executor};
use minions_proto::message::{
    Done, Exec, ExecAttach, ExecAttached, ExecInfo, ExecInspect, ExecRemove, ExecReply, ExecSignal,
    ExecStart,
};
use minions_proto::{AgentError, ErrorCode};

/// Runs a program to its end. Dropping the future ends the program and all processes that it started.
pub(super) async fn run(executor: &Executor, call: Exec) -> Result<ExecReply, AgentError> {
    executor.run(call).await.map_err(|error| refused(&error))
}

/// Starts a program and opens its stream. If the future is dropped after the start, the program keeps running
/// for its re-attach grace period.
pub(super) async fn start(
    executor: &Executor,
    call: ExecStart,
) -> Result<(ExecAttached, ExecTail), AgentError> {
    opened(executor.start(call).await)
}

pub(super) async fn attach(
    executor: &Executor,
    call: ExecAttach,
) -> Result<(ExecAttached, ExecTail), AgentError> {
    opened(executor.attach(call).await)
}

fn opened(begin: AttachResult) -> Result<(ExecAttached, ExecTail), AgentError> {
    begin.map_err(|error| refused(&error))
}

pub(super) async fn inspect(
    executor: &Executor,
    call: ExecInspect,
) -> Result<ExecInfo, AgentError> {
    executor.inspect(call).await.map_err(|error| refused(&error))
}

pub(super) async fn signal(executor: &Executor, call: ExecSignal) -> Result<Done, AgentError> {
    let message = format!("sent {} to {}", call.signal, call.id);
    executor.signal(call).await.map_err(|error| refused(&error))?;
    Ok(Done { message })
}

/// Removes an exec and ends its program. Dropping the future does not stop that.
pub(super) async fn remove(executor: &Executor, call: ExecRemove) -> Result<ExecInfo, AgentError> {
    executor.remove(&call.id).await.map_err(|error| refused(&error))
}

pub(super) fn refused(error: &ExecError) -> AgentError {
    let code = match error {
        ExecError::Invalid(invalid) | ExecError::Refused(ExecRefusal::Invalid(invalid)) => {
            return invalid.clone().into();
        }
        ExecError::Busy => ErrorCode::Busy,
        ExecError::NotFound { .. } => ErrorCode::CommandNotFound,
        ExecError::NotExecutable { .. } | ExecError::MissingInterpreter { .. } => {
            ErrorCode::CommandNotExecutable
        }
        ExecError::User(_) => ErrorCode::UserNotFound,
        ExecError::Cwd { .. } => ErrorCode::CwdNotFound,
        ExecError::TooLong(_) => ErrorCode::ArgumentListTooLong,
        ExecError::Gone(_) | ExecError::Earlier { .. } => ErrorCode::ExecGone,
        ExecError::NotEnded(_) => ErrorCode::ExecNotEnded,
        ExecError::Conflict => ErrorCode::ExecConflict,
        ExecError::Refused(refusal) => refusal_code(refusal),
        ExecError::Start { .. }
        | ExecError::SwitchUser { .. }
        | ExecError::Limits(_)
        | ExecError::Nul
        | ExecError::Streams(_) => ErrorCode::ExecFailed,
        ExecError::Wait(_) | ExecError::Lost(_) | ExecError::Interrupted | ExecError::Encode(_) => {
            ErrorCode::Internal
        }
    };
    let field = match error {
        ExecError::User(_) | ExecError::SwitchUser { .. } => Some("user"),
        ExecError::Cwd { .. } => Some("cwd"),
        ExecError::Limits(_) => Some("rlimits"),
        ExecError::Gone(_)
        | ExecError::Earlier { .. }
        | ExecError::NotEnded(_)
        | ExecError::Conflict => Some("id"),
        _ => None,
    };
    let mut refused = AgentError::new(code, error_chain(error)).with_errno(error.errno());
    refused.field = field.map(str::to_owned);
    refused
}

/// Returns the error reply for a message of the host on a stream.
pub(crate) fn stream_refusal(refusal: &ExecRefusal) -> AgentError {
    AgentError::new(refusal_code(refusal), error_chain(refusal))
}

fn refusal_code(refusal: &ExecRefusal) -> ErrorCode {
    match refusal {
        ExecRefusal::Invalid(_) => ErrorCode::InvalidArgument,
        ExecRefusal::Ended => ErrorCode::ExecEnded,
        ExecRefusal::TooManySignals => ErrorCode::Busy,
        ExecRefusal::Window | ExecRefusal::InputClosed => ErrorCode::BadRequest,
    }
}
