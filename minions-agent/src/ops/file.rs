//! `file_start`: operations on files.

use super::exec::refused;
use crate::exec::{ExecTail, Executor};
use minions_proto::message::{ExecAttached, ExecStart, FileStart};
use minions_proto::{AgentError, ErrorCode, json};
use std::path::Path;

/// First argument of the agent's program that selects an operation, which follows as JSON.
pub(crate) const ARGUMENT: &str = "file-op";

/// Starts the operation and opens its stream. If the future is dropped after the start, the operation keeps running
/// for its re-attach grace period.
pub(super) async fn start(
    executor: &Executor,
    program: &Path,
    call: FileStart,
) -> Result<(ExecAttached, ExecTail), AgentError> {
    call.validate()?;
    let FileStart { id, user, on_disconnect, reattach_grace_ms, op } = call;
    let json = json::to_vec(&op).map_err(|error| {
        AgentError::new(ErrorCode::Internal, format!("cannot encode the operation: {error}"))
    })?;
    let json = String::from_utf8_lossy(&json).into_owned();
    let start = ExecStart {
        id,
        command: program.to_string_lossy().into_owned(),
        args: vec![ARGUMENT.to_owned(), json],
        user,
        stdin: op.takes_input(),
        on_disconnect,
        reattach_grace_ms,
        ..ExecStart::default()
    };
    executor.start_file_operation(start).await.map_err(|error| refused(&error))
}
