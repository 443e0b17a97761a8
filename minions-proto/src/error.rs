//! What is wrong: with a value ([`Invalid`]), or with a request ([`AgentError`], the error reply
//! `{"status":"error","message":"…"}` and what protocol 2 adds to it).

use serde::{Deserialize, Serialize};

/// Why an agent refused or failed. Stable: programs decide on it, people read the message.
///
/// A base agent sends none; a newer one may send a code that this version doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, or not the shape that the request type wants.
    BadRequest,
    /// A request type that this agent doesn't know.
    Unsupported,
    /// A well-shaped request with a value that can't be; the `field` says which.
    InvalidArgument,
    /// This agent was started without this request type.
    Forbidden,
    /// A length prefix over the cap. The agent closes after this reply.
    FrameTooLarge,
    /// No such program.
    CommandNotFound,
    /// The program is there, but the kernel won't run it for us.
    CommandNotExecutable,
    /// No such user or group in the guest.
    UserNotFound,
    /// The working directory is missing, or closed to the user.
    CwdNotFound,
    /// Arguments and environment are longer than the kernel takes (E2BIG).
    ArgumentListTooLong,
    /// There is no exec of this id: it never was, or it ended long ago and was dropped.
    ExecGone,
    /// The id belongs to another command.
    ExecConflict,
    /// The exec has ended already.
    ExecEnded,
    /// The exec was told to end and has not ended.
    ExecNotEnded,
    /// Another host took the stream over.
    TakenOver,
    /// The program could not be started for another reason (`errno` says which).
    ExecFailed,
    /// The guest's network could not be brought to the wanted state.
    NetworkFailed,
    /// Another change of the network waits for its confirmation.
    NetworkPending,
    /// No change of the network with this id waits: it was put back, or never was.
    NetworkChangeGone,
    /// A file could not be written.
    IoFailed,
    /// The guest's clock could not be set.
    ClockFailed,
    /// The agent is at one of its limits; trying again later is sensible.
    Busy,
    /// The agent broke; a bug.
    Internal,
    /// A code minted after this version.
    #[serde(other)]
    Other,
}

/// A field whose value can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}")]
pub struct Invalid {
    /// The field's path in the request: `dns[1]`.
    pub field: String,
    /// What is wrong and what would be right, as the rest of a sentence about the field.
    pub reason: String,
}

impl Invalid {
    /// Quotes the value in question, escaped: it came from somebody else.
    pub fn value(field: impl Into<String>, value: &str, reason: &str) -> Self {
        Self { field: field.into(), reason: format!("is {value:?}: {reason}") }
    }

    /// For a value that is better not repeated: too long, or secret.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// An error reply.
///
/// Fields other than `message` are absent from a base agent's reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// For people. Guest-made: escape it before a terminal or a page shows it.
    pub message: String,
    /// For programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// The request field that is wrong, as a path (`args[2]`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The kernel's error number, where it was the kernel that said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// What was being done to the network when it failed: `addresses`, `verify gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Whether the network is as it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
}

impl AgentError {
    /// An error with a code and a message.
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

    /// The refusal of an operation that the agent was started without.
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
