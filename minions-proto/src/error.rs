//! Errors: of a value ([`Invalid`]), and of a request ([`AgentError`], the error reply
//! `{"status":"error","message":"…"}` with the fields that protocol 2 adds).

use serde::{Deserialize, Serialize};

/// Stable code of an agent's refusal or failure, for programs; people read the message.
///
/// A base agent sends none. A newer agent may send a code that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is not JSON, or does not have the fields of its type.
    BadRequest,
    /// The agent does not know this request type.
    Unsupported,
    /// The request is well-formed, but a value is invalid; `field` names it.
    InvalidArgument,
    /// The agent was started without this request type.
    Forbidden,
    /// The length prefix exceeds the limit. The agent closes the connection after this reply.
    FrameTooLarge,
    /// The guest has no such program.
    CommandNotFound,
    /// The kernel refuses to run the program.
    CommandNotExecutable,
    /// The guest has no such user or group.
    UserNotFound,
    /// The working directory is missing, or the user has no access to it.
    CwdNotFound,
    /// Arguments and environment exceed the kernel's limit (E2BIG).
    ArgumentListTooLong,
    /// The agent has no exec with this id: it never existed, or it ended long ago and was dropped.
    ExecGone,
    /// The id belongs to another command.
    ExecConflict,
    /// The exec has already ended.
    ExecEnded,
    /// The exec was told to end and has not ended.
    ExecNotEnded,
    /// Another host took over the stream.
    TakenOver,
    /// The program could not be started for another reason (`errno` says which).
    ExecFailed,
    /// The guest's network could not be changed as requested.
    NetworkFailed,
    /// Another network change waits for its confirmation.
    NetworkPending,
    /// The network change with this id was already rolled back, or never existed.
    NetworkChangeGone,
    /// A file could not be written.
    IoFailed,
    /// The guest's clock could not be set.
    ClockFailed,
    /// The target of a forward could not be connected to, or the address not be listened on (`errno` says why); or
    /// the connection does not wait any more.
    ForwardFailed,
    /// The guest is quiesced, and only health, status and thaw are answered; retry after its lease.
    Quiesced,
    /// The guest is not quiesced: it was not, or its lease has ended.
    NotQuiesced,
    /// The guest could not be quiesced; `step` names the step that failed.
    QuiesceFailed,
    /// The guest was restored or cloned, and the restore steps have not ended; retry later.
    Restoring,
    /// The agent has reached one of its limits; retry later.
    Busy,
    /// A bug in the agent.
    Internal,
    /// A code that was added after this version.
    #[serde(other)]
    Other,
}

/// Invalid value of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}")]
pub struct Invalid {
    /// Path of the field in the request: `dns[1]`.
    pub field: String,
    /// Reason and remedy, as the rest of a sentence that begins with the field.
    pub reason: String,
}

impl Invalid {
    /// Creates an error that quotes the value, escaped because it is foreign input.
    pub fn value(field: impl Into<String>, value: &str, reason: &str) -> Self {
        Self { field: field.into(), reason: format!("is {value:?}: {reason}") }
    }

    /// Creates an error that does not repeat the value, because it is too long or secret.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// Error reply of an agent. A base agent sends only `message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// Text for people. Written by the guest: escape it before a terminal or a page shows it.
    pub message: String,
    /// Stable code for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// Path of the request field that is wrong: `args[2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Error number of the guest's kernel, if the kernel refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// Step of the network change or of the quiesce that failed: `addresses`, `verify_gateway`, `freeze`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// True if the old network configuration is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
}

impl AgentError {
    /// Creates an error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: Some(code),
            field: None,
            errno: None,
            step: None,
            restored: None,
        }
    }

    /// Creates the refusal of an operation that the agent was started without.
    #[must_use]
    pub fn not_allowed(operation: &str) -> Self {
        let message = format!(
            "this agent was started without `{operation}`; to permit it, add `{operation}` to the option --allow of \
             minions-agent in the guest"
        );
        Self::new(ErrorCode::Forbidden, message)
    }

    /// Adds the kernel's error number.
    #[must_use]
    pub fn with_errno(mut self, errno: Option<i32>) -> Self {
        self.errno = errno;
        self
    }
}

impl From<Invalid> for AgentError {
    fn from(invalid: Invalid) -> Self {
        let message = invalid.to_string();
        Self { field: Some(invalid.field), ..Self::new(ErrorCode::InvalidArgument, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_an_invalid_value_names_its_field() {
        let error = AgentError::from(Invalid::new("dns[1]", "is no address"));
        assert_eq!(error.field.as_deref(), Some("dns[1]"));
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument));
        assert_eq!(error.message, "`dns[1]` is no address");
    }
}
