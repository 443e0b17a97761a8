//! Failures: `application/problem+json` (RFC 9457) with a stable code.

use crate::VmName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Stable code of a problem, for programs. docs/API.md describes each code, and whether a retry can
/// help.
// The functions below match exhaustively: a new code does not compile until each of them handles
// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The registry has no VM of this name.
    VmNotFound,
    /// The daemon has no route with this path.
    NotFound,
    /// The request is invalid: 400 if it could not be read, 422 if a value is wrong.
    InvalidRequest,
    /// The body, or the frame that it would need, is too long.
    PayloadTooLarge,
    /// The content type is not `application/json`.
    UnsupportedMediaType,
    /// The caller is not authenticated, and the route requires it; or its token is wrong.
    Unauthenticated,
    /// The caller may not do this, or not over this connection.
    Forbidden,
    /// The path does not support this method.
    MethodNotAllowed,
    /// The guest has no such program.
    CommandNotFound,
    /// The guest's kernel refuses to run the program.
    CommandNotExecutable,
    /// Arguments and environment exceed the limit of the guest's kernel.
    ArgumentListTooLong,
    /// The guest has no such user or group.
    UserNotFound,
    /// The working directory is missing in the guest, or the user has no access to it.
    CwdNotFound,
    /// The name or value of an environment variable is invalid.
    InvalidEnv,
    /// The signal does not exist.
    InvalidSignal,
    /// The id does not have the form of an exec id.
    InvalidExecId,
    /// The guest has no exec with this id: it never existed, or it ended long ago.
    ExecGone,
    /// The id belongs to another command, or the exec has already ended.
    ExecConflict,
    /// The guest's network could not be changed as requested. `step` names the step that failed,
    /// `restored` says whether the old configuration is back.
    NetworkFailed,
    /// Another change of the guest's network waits for its confirmation.
    NetworkPending,
    /// The change with this id was already rolled back, or never existed.
    NetworkChangeGone,
    /// The agent understood the request and failed, or refused it.
    AgentError,
    /// The agent's version lacks a feature that the request needs.
    AgentTooOld,
    /// The agent's reply violates the protocol.
    AgentProtocolError,
    /// The connection to the agent broke during the call.
    ConnectionLost,
    /// The agent cannot be reached at the moment.
    AgentUnreachable,
    /// A limit is reached; retry later.
    Overloaded,
    /// The audit log cannot be written, and `audit` is `required`: nothing was done.
    AuditUnavailable,
    /// The daemon is stopping.
    ShuttingDown,
    /// The agent did not answer before the deadline.
    AgentTimeout,
    /// A bug in the daemon.
    Internal,
}

impl ErrorCode {
    /// Returns the code's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VmNotFound => "vm_not_found",
            Self::NotFound => "not_found",
            Self::InvalidRequest => "invalid_request",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::CommandNotFound => "command_not_found",
            Self::CommandNotExecutable => "command_not_executable",
            Self::ArgumentListTooLong => "argument_list_too_long",
            Self::UserNotFound => "user_not_found",
            Self::CwdNotFound => "cwd_not_found",
            Self::InvalidEnv => "invalid_env",
            Self::InvalidSignal => "invalid_signal",
            Self::InvalidExecId => "invalid_exec_id",
            Self::ExecGone => "exec_gone",
            Self::ExecConflict => "exec_conflict",
            Self::NetworkFailed => "network_failed",
            Self::NetworkPending => "network_pending",
            Self::NetworkChangeGone => "network_change_gone",
            Self::AgentError => "agent_error",
            Self::AgentTooOld => "agent_too_old",
            Self::AgentProtocolError => "agent_protocol_error",
            Self::ConnectionLost => "connection_lost",
            Self::AgentUnreachable => "agent_unreachable",
            Self::Overloaded => "overloaded",
            Self::AuditUnavailable => "audit_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::AgentTimeout => "agent_timeout",
            Self::Internal => "internal",
        }
    }

    /// Returns the HTTP status of the code. An unreadable `invalid_request` is a 400 instead.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::VmNotFound | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::ExecConflict | Self::NetworkPending => 409,
            Self::ExecGone | Self::NetworkChangeGone => 410,
            Self::InvalidRequest
            | Self::CommandNotFound
            | Self::CommandNotExecutable
            | Self::ArgumentListTooLong
            | Self::UserNotFound
            | Self::CwdNotFound
            | Self::InvalidEnv
            | Self::InvalidSignal
            | Self::InvalidExecId => 422,
            Self::Internal => 500,
            Self::AgentTooOld => 501,
            Self::AgentError
            | Self::AgentProtocolError
            | Self::ConnectionLost
            | Self::NetworkFailed => 502,
            Self::AgentUnreachable
            | Self::Overloaded
            | Self::AuditUnavailable
            | Self::ShuttingDown => 503,
            Self::AgentTimeout => 504,
        }
    }

    /// Returns a short name for people, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::VmNotFound => "No such VM",
            Self::NotFound => "No such path",
            Self::InvalidRequest => "Invalid request",
            Self::PayloadTooLarge => "Payload too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::Unauthenticated => "Not authenticated",
            Self::Forbidden => "Not allowed",
            Self::MethodNotAllowed => "Method not allowed",
            Self::CommandNotFound => "Command not found in the guest",
            Self::CommandNotExecutable => "Command not executable in the guest",
            Self::ArgumentListTooLong => "Argument list too long",
            Self::UserNotFound => "User not found in the guest",
            Self::CwdNotFound => "Working directory not usable in the guest",
            Self::InvalidEnv => "Invalid environment variable",
            Self::InvalidSignal => "Invalid signal",
            Self::InvalidExecId => "Invalid exec id",
            Self::ExecGone => "No such exec",
            Self::ExecConflict => "Exec id in use",
            Self::NetworkFailed => "Network change failed in the guest",
            Self::NetworkPending => "A network change waits for its confirmation",
            Self::NetworkChangeGone => "No such network change",
            Self::AgentError => "The agent reported an error",
            Self::AgentTooOld => "The agent is too old for this",
            Self::AgentProtocolError => "The agent broke the protocol",
            Self::ConnectionLost => "Connection to the agent lost",
            Self::AgentUnreachable => "The agent can't be reached",
            Self::Overloaded => "Overloaded",
            Self::AuditUnavailable => "Audit log unavailable",
            Self::ShuttingDown => "Shutting down",
            Self::AgentTimeout => "The agent did not answer in time",
            Self::Internal => "Internal error",
        }
    }

    /// Reports whether the same request, unchanged, can succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::ConnectionLost
            | Self::AgentUnreachable
            | Self::Overloaded
            | Self::AuditUnavailable
            | Self::ShuttingDown
            | Self::AgentTimeout => true,
            // A pending change is confirmed or rolled back eventually, but a client should not poll
            // for that.
            Self::NetworkFailed | Self::NetworkPending | Self::NetworkChangeGone => false,
            Self::VmNotFound
            | Self::NotFound
            | Self::InvalidRequest
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::MethodNotAllowed
            | Self::CommandNotFound
            | Self::CommandNotExecutable
            | Self::ArgumentListTooLong
            | Self::UserNotFound
            | Self::CwdNotFound
            | Self::InvalidEnv
            | Self::InvalidSignal
            | Self::InvalidExecId
            | Self::ExecGone
            | Self::ExecConflict
            | Self::AgentError
            | Self::AgentTooOld
            | Self::AgentProtocolError
            | Self::Internal => false,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Body of every reply that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{detail}")]
pub struct Problem {
    /// `urn:minions:problem:`, followed by the code.
    pub r#type: String,
    /// Short name for people, the same for every occurrence of the code.
    pub title: String,
    /// HTTP status of the reply.
    #[cfg_attr(feature = "openapi", schema(minimum = 400, maximum = 599))]
    pub status: u16,
    /// Description of this occurrence for people: what was wrong, and what would be right.
    pub detail: String,
    /// Stable code for programs.
    pub code: ErrorCode,
    /// `X-Request-Id` of the request, also written to the daemon's log.
    pub request_id: String,
    /// VM of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmName>,
    /// Path of the request field that is wrong: `args[2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Layer that failed, if the agent cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<crate::vm::Failure>,
    /// Stable code of the agent, if it sent one that this daemon knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_code: Option<String>,
    /// Step of the network change that failed: `addresses`, `verify_gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// True if the guest's old network configuration is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    /// True if the same request can succeed later.
    pub retryable: bool,
    /// True if the guest may have done the requested operation despite the failure.
    pub may_have_executed: bool,
}

impl Problem {
    /// Creates a problem with the status and title of the code; all other details are empty.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            r#type: format!("urn:minions:problem:{code}"),
            title: code.title().into(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: String::new(),
            vm: None,
            field: None,
            failure: None,
            agent_code: None,
            step: None,
            restored: None,
            retryable: code.is_retryable(),
            may_have_executed: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_the_same_in_json_and_in_text() {
        for code in [ErrorCode::VmNotFound, ErrorCode::AgentProtocolError, ErrorCode::Internal] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
