//! Every failure: `application/problem+json` (RFC 9457) with a stable code.

use crate::VmName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, for programs. The functions below are total: a new code doesn't compile until
/// each of them has an answer for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The registry has no VM of this name.
    VmNotFound,
    /// No such path.
    NotFound,
    /// The request can't be: 400 if it could not be read, 422 if a value is wrong.
    InvalidRequest,
    /// The body, or the frame it would make, is too long.
    PayloadTooLarge,
    /// The body must be `application/json`.
    UnsupportedMediaType,
    /// Nobody in particular asked for what somebody in particular may do.
    Unauthenticated,
    /// Whoever asked may not do this, or from here.
    Forbidden,
    /// The path exists, this method on it does not.
    MethodNotAllowed,
    /// The guest has no such program.
    CommandNotFound,
    /// The guest's kernel won't run this program.
    CommandNotExecutable,
    /// Arguments and environment are longer than the guest's kernel takes.
    ArgumentListTooLong,
    /// The guest has no such user or group.
    UserNotFound,
    /// The working directory is missing in the guest, or closed to the user.
    CwdNotFound,
    /// No environment variable can have this name or value.
    InvalidEnv,
    /// There is no such signal.
    InvalidSignal,
    /// No exec can have this id.
    InvalidExecId,
    /// The guest has no exec of this id: it never was, or it ended long ago.
    ExecGone,
    /// The id belongs to another command, or the exec has ended already.
    ExecConflict,
    /// The guest's network could not be made as it was asked for; `step` says what failed, `restored`
    /// whether everything is as it was before.
    NetworkFailed,
    /// Another change of the guest's network waits for its confirmation.
    NetworkPending,
    /// No change with this id waits for a confirmation: it was put back, or never was.
    NetworkChangeGone,
    /// The agent understood and failed, or refused.
    AgentError,
    /// The agent is of a version that can't do this.
    AgentTooOld,
    /// What came back isn't the protocol.
    AgentProtocolError,
    /// The connection to the agent broke in the middle.
    ConnectionLost,
    /// There is no way to the agent at the moment.
    AgentUnreachable,
    /// A limit is reached; come back later.
    Overloaded,
    /// The audit log cannot be written, and `audit = "required"`: nothing was done.
    AuditUnavailable,
    /// The daemon is on its way out.
    ShuttingDown,
    /// The agent didn't answer in time.
    AgentTimeout,
    /// A bug in the daemon.
    Internal,
}

impl ErrorCode {
    /// The code as it stands in JSON.
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

    /// The HTTP status that goes with it. An unreadable `invalid_request` is a 400 instead.
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

    /// A short name for people, the same for every occurrence.
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

    /// Whether the same request can succeed later without anybody changing it.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::ConnectionLost
            | Self::AgentUnreachable
            | Self::Overloaded
            | Self::AuditUnavailable
            | Self::ShuttingDown
            | Self::AgentTimeout => true,
            // What waits is confirmed or put back in the end, but nobody should wait for that.
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

/// The body of every reply that isn't a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{detail}")]
pub struct Problem {
    /// `urn:minions:problem:` and the code.
    pub r#type: String,
    /// A short name for people, the same for every occurrence.
    pub title: String,
    /// The HTTP status again.
    #[cfg_attr(feature = "openapi", schema(minimum = 400, maximum = 599))]
    pub status: u16,
    /// This occurrence, for people: what was wrong and what would be right.
    pub detail: String,
    /// For programs.
    pub code: ErrorCode,
    /// The `X-Request-Id` of the request, to be found in the daemon's log.
    pub request_id: String,
    /// The VM that it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmName>,
    /// The request field that is wrong, as a path: `args[2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Which layer failed, where there is no way to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<crate::vm::Failure>,
    /// The agent's own stable code, if it sent one that is known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_code: Option<String>,
    /// What was being done to the guest's network when it failed: `addresses`, `verify_gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Whether the guest's network is as it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// Whether the guest may have done what was asked, in spite of the failure.
    pub may_have_executed: bool,
}

impl Problem {
    /// A problem with the code's own status and title, and nothing particular said.
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
