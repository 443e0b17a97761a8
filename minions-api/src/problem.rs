//! Failures: `application/problem+json` (RFC 9457) with a stable code.

use crate::error_code::ErrorCode;
use crate::vm_name::VmName;
use serde::{Deserialize, Serialize};

/// Media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

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
    /// Step that failed, of a network change (`addresses`, `verify_gateway`) or of an operation on a file (`open`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Name of the kernel's error number, if an operation on a file failed in the guest: `EACCES`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// File of the guest that the failure is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// True if the guest's old network configuration is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    /// True if the same request can succeed later.
    pub retryable: bool,
    /// True if the requested operation may have been done despite the failure, or may still be done.
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
            errno: None,
            path: None,
            restored: None,
            retryable: code.is_retryable(),
            may_have_executed: false,
        }
    }
}
