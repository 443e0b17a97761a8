//! Failures as JSON, for `-o json`.

use crate::failure::Failure;
use minions_api::VmName;
use serde::Serialize;

/// Failure of a command, in a form for programs.
#[derive(Debug, Serialize)]
pub(super) struct FailureReport<'a> {
    /// Always `error`.
    status: &'static str,
    /// Code of the problem of minionsd, or of the failure of minionsctl.
    code: &'a str,
    /// Failure with its causes, for people.
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// `X-Request-Id` of the request, also written to the log of minionsd.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<&'a VmName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_code: Option<&'a str>,
    retryable: bool,
    may_have_executed: bool,
}

impl<'a> FailureReport<'a> {
    /// `message`: the failure with its causes.
    pub(super) fn new(failure: &'a Failure, message: String, hint: Option<String>) -> Self {
        let problem = failure.problem();
        Self {
            status: "error",
            code: failure.code(),
            message,
            hint,
            request_id: problem.map(|problem| problem.request_id.as_str()),
            http_status: problem.map(|problem| problem.status),
            vm: problem.and_then(|problem| problem.vm.as_ref()),
            field: problem.and_then(|problem| problem.field.as_deref()),
            agent_code: problem.and_then(|problem| problem.agent_code.as_deref()),
            retryable: problem.map_or_else(|| failure.is_transient(), |problem| problem.retryable),
            may_have_executed: failure.may_have_executed() || failure.may_have_started(),
        }
    }
}
