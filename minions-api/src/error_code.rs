//! Table of the codes of problems. docs/API.md has the same table; a test compares them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Properties of an [`ErrorCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCodeInfo {
    /// Name in JSON.
    pub name: &'static str,
    /// HTTP status.
    pub status: u16,
    /// HTTP status in a special case, which the meaning describes.
    pub other_status: Option<u16>,
    /// Short name for people, the same for every occurrence.
    pub title: &'static str,
    /// Meaning for people, as in docs/API.md.
    pub meaning: &'static str,
    /// True if the same request, unchanged, can succeed later.
    pub retryable: bool,
    /// True if the reply has `Retry-After`.
    pub retry_after: bool,
    /// Answer to the question whether the guest may have executed the request.
    pub execution: GuestExecution,
    /// Advice for the user of a command line, if the problem itself does not say what to do.
    pub advice: Option<&'static str>,
}

/// Answer to the question whether the guest, or the writer of the declared state, may have executed a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestExecution {
    /// The guest has not executed it.
    Excluded,
    /// The field `may_have_executed` tells.
    PerProblem,
    /// The guest may have executed it.
    Possible,
}

impl ErrorCodeInfo {
    const fn new(
        name: &'static str,
        status: u16,
        title: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self {
            name,
            status,
            other_status: None,
            title,
            meaning,
            retryable: false,
            retry_after: false,
            execution: GuestExecution::Excluded,
            advice: None,
        }
    }

    const fn or(self, status: u16) -> Self {
        Self { other_status: Some(status), ..self }
    }

    const fn retryable(self) -> Self {
        Self { retryable: true, ..self }
    }

    const fn retry_after(self) -> Self {
        Self { retryable: true, retry_after: true, ..self }
    }

    const fn executed(self, execution: GuestExecution) -> Self {
        Self { execution, ..self }
    }

    const fn advice(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}

/// Defines [`ErrorCode`]: a variant, its documentation, and its [`ErrorCodeInfo`].
macro_rules! error_codes {
    ($($variant:ident: $name:literal, $status:literal, $title:literal, $meaning:literal
       $(, $with:ident($($argument:expr)?))*;)+) => {
        /// Stable code of a problem, for programs. docs/API.md describes each code, and whether a retry can
        /// help.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)+
        }

        impl ErrorCode {
            /// All codes, in the order of docs/API.md.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the properties of the code.
            #[must_use]
            pub const fn info(self) -> &'static ErrorCodeInfo {
                match self {
                    $(Self::$variant => const {
                        &ErrorCodeInfo::new($name, $status, $title, $meaning)
                            $(.$with($($argument)?))*
                    },)+
                }
            }
        }
    };
}

error_codes! {
    InvalidRequest: "invalid_request", 422, "Invalid request",
        "the request cannot be parsed (400), or a value is invalid (422); `field` names the value",
        or(400);
    VmNotFound: "vm_not_found", 404, "No such VM",
        "the daemon knows no VM of this name",
        advice("`minionsctl ls` lists the VMs");
    DeclarationNotFound: "declaration_not_found", 404, "No such declaration",
        "no declaration has this name, or none has settings for the VM",
        advice("`minionsctl declarations` lists the declarations");
    PoolNotFound: "pool_not_found", 404, "No such pool",
        "no address pool has this name",
        advice("`minionsctl pool ls` lists the pools");
    LeaseNotFound: "lease_not_found", 404, "No such lease",
        "the address has no lease in the pool";
    RevisionChanged: "revision_changed", 412, "Another revision",
        "the declaration or pool does not have the ETag of `If-Match`, or exists in spite of `If-None-Match: *`";
    PoolConflict: "pool_conflict", 409, "Conflict of pools",
        "the pool overlaps another one, is in use, or would lose an address that it gave";
    AddressConflict: "address_conflict", 409, "Address belongs to another VM",
        "the address is declared for, leased by or reserved for another VM, or is in use";
    PoolExhausted: "pool_exhausted", 409, "No free address",
        "the pool has no free address";
    VmDeclared: "vm_declared", 409, "Declarations configure this VM",
        "the network or the hostname of this VM is declared; change the declaration, or repeat the request with `override=true`",
        advice("`minionsctl config` shows the declarations of the VM; --override changes its network nevertheless");
    StateUnavailable: "state_unavailable", 503, "Declared state unavailable",
        "the database of the declared state cannot be written; `Retry-After`",
        retry_after(), executed(GuestExecution::PerProblem);
    NotFound: "not_found", 404, "No such path",
        "no such path";
    MethodNotAllowed: "method_not_allowed", 405, "Method not allowed",
        "`Allow` and `detail` list the accepted methods";
    PayloadTooLarge: "payload_too_large", 413, "Payload too large",
        "the body exceeds 2 MiB (8 MiB for requests to run a program or to apply declarations), or the encoded message to the agent would exceed 1 MiB";
    UnsupportedMediaType: "unsupported_media_type", 415, "Unsupported media type",
        "the route does not accept the content type";
    Unauthenticated: "unauthenticated", 401, "Not authenticated",
        "the token is wrong, or a required credential is missing",
        advice("use the Unix socket as root or as a member of the group minions, or --token-file");
    Forbidden: "forbidden", 403, "Not allowed",
        "the caller may not operate, `Host` is not allowed, or the request comes from a page of another origin",
        advice("use the Unix socket as root or as a member of the group minions, or --token-file");
    CommandNotFound: "command_not_found", 422, "Command not found in the guest",
        "the guest has no such program";
    CommandNotExecutable: "command_not_executable", 422, "Command not executable in the guest",
        "the guest's kernel refuses to run it";
    ArgumentListTooLong: "argument_list_too_long", 422, "Argument list too long",
        "arguments and environment exceed the limit of the guest's kernel, or 1 MiB encoded";
    UserNotFound: "user_not_found", 422, "User not found in the guest",
        "the guest has no such user or group";
    CwdNotFound: "cwd_not_found", 422, "Working directory not usable in the guest",
        "the directory does not exist, or the user has no access to it";
    InvalidEnv: "invalid_env", 422, "Invalid environment variable",
        "the name or value of an environment variable is invalid";
    InvalidSignal: "invalid_signal", 422, "Invalid signal",
        "the signal does not exist";
    InvalidExecId: "invalid_exec_id", 422, "Invalid exec id",
        "the id does not have the form of an exec id";
    ExecGone: "exec_gone", 410, "No such exec",
        "the agent has no exec with this id, or has already dropped it";
    ExecConflict: "exec_conflict", 409, "Exec id in use",
        "the id belongs to another command; the exec has ended; another client took it over; `DELETE` could not end it (`agent_code` is `exec_not_ended`)",
        executed(GuestExecution::PerProblem);
    VmReplaced: "vm_replaced", 409, "Another incarnation of the VM",
        "the boot or the instance that answers is not the one of `If-Incarnation`; nothing was executed";
    FileNotFound: "file_not_found", 404, "No such file in the guest",
        "the guest has no such file or directory; `path` names it";
    FileExists: "file_exists", 409, "File exists in the guest",
        "the name exists, and the request was only to create it";
    FileChanged: "file_changed", 412, "File is another version",
        "the file does not have the ETag of `If-Match`";
    FileAccessDenied: "file_access_denied", 403, "Access denied in the guest",
        "the user in the guest lacks a permission for the file; `errno` and `step` have details";
    NoSpaceLeft: "no_space_left", 507, "No space left in the guest",
        "the guest's file system or the user's quota is full; no incomplete file has its final name";
    RangeNotSatisfiable: "range_not_satisfiable", 416, "Range begins after the end of the file",
        "the file is shorter than the first byte of `Range`; `Content-Range` has its size";
    FileFailed: "file_failed", 422, "File operation failed in the guest",
        "the guest's kernel or agent refused the operation; `errno`, `path` and `step` have the reason",
        executed(GuestExecution::PerProblem);
    ForwardFailed: "forward_failed", 502, "Connection in the guest failed",
        "the agent could not connect to the target or listen on the address, or the connection no longer waits";
    NetworkFailed: "network_failed", 502, "Network change failed in the guest",
        "the network change failed at `step`; `restored` states whether the previous network is back: see [The network](#the-network)",
        executed(GuestExecution::PerProblem);
    NetworkPending: "network_pending", 409, "A network change waits for its confirmation",
        "another network change waits for its confirmation";
    NetworkChangeGone: "network_change_gone", 410, "No such network change",
        "no network change of this id waits for a confirmation";
    NotQuiesced: "not_quiesced", 409, "The guest is not quiesced",
        "there is nothing to thaw: the guest was not quiesced, or its lease has ended";
    QuiesceFailed: "quiesce_failed", 502, "The guest could not be quiesced",
        "a hook, the sync or a freeze failed at `step`; the guest is thawed again",
        executed(GuestExecution::Possible);
    Internal: "internal", 500, "Internal error",
        "a bug in minionsd";
    AgentTooOld: "agent_too_old", 501, "The agent is too old for this",
        "the agent lacks a feature; `detail` names it",
        advice("install a newer minions-agent in the guest");
    AgentError: "agent_error", 502, "The agent reported an error",
        "the agent reported a failure; `agent_code` is its own code. 501 with the `agent_code` `forbidden`: the agent was started without this operation (`minions-agent --allow`)",
        or(501), executed(GuestExecution::PerProblem);
    AgentProtocolError: "agent_protocol_error", 502, "The agent broke the protocol",
        "the agent's data violates the protocol",
        executed(GuestExecution::Possible);
    ConnectionLost: "connection_lost", 502, "Connection to the agent lost",
        "the connection broke during the call",
        retryable(), executed(GuestExecution::PerProblem);
    AgentUnreachable: "agent_unreachable", 503, "The agent can't be reached",
        "the agent cannot be reached; `failure` names the layer; `Retry-After`",
        retry_after(), advice("`minionsctl doctor VM` shows which layer failed");
    Overloaded: "overloaded", 503, "Overloaded",
        "a limit is reached, or the daemon has just started; `Retry-After`",
        retry_after(), executed(GuestExecution::PerProblem);
    Quiesced: "quiesced", 503, "The guest is quiesced",
        "the guest is quiesced for a snapshot and answers only health, status and thaw until its lease ends; `Retry-After`",
        retry_after(), advice("wait until the lease ends, or end it with `minionsctl thaw VM`");
    AuditUnavailable: "audit_unavailable", 503, "Audit log unavailable",
        "the audit file cannot be written, and `audit = \"required\"` is set; nothing was executed; `Retry-After`",
        retry_after();
    ShuttingDown: "shutting_down", 503, "Shutting down",
        "minionsd is stopping; `Retry-After`",
        retry_after();
    AgentTimeout: "agent_timeout", 504, "The agent did not answer in time",
        "no answer before the deadline",
        retryable(), executed(GuestExecution::PerProblem);
}

impl ErrorCode {
    /// Returns the code's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.info().name
    }

    /// Returns the HTTP status of the code. [`ErrorCodeInfo::other_status`] has the exceptions.
    #[must_use]
    pub fn status(self) -> u16 {
        self.info().status
    }

    /// Returns a short name for people, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.info().title
    }

    /// Reports whether the same request, unchanged, can succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.info().retryable
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_the_same_in_json_and_in_text() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    /// Rows of the table in docs/API.md.
    fn rows() -> String {
        let row = |code: &ErrorCode| {
            let info = code.info();
            let status = [Some(info.status), info.other_status].into_iter().flatten();
            let status: Vec<_> = status.map(|status| status.to_string()).collect();
            let retry = if info.retryable { "yes" } else { "no" };
            let executed = match info.execution {
                GuestExecution::Excluded => "no",
                GuestExecution::PerProblem => "see the field",
                GuestExecution::Possible => "**yes**",
            };
            format!(
                "| `{code}` | {} | {} | {retry} | {executed} |\n",
                status.join(", "),
                info.meaning
            )
        };
        ErrorCode::ALL.iter().map(row).collect()
    }

    #[test]
    fn the_table_in_the_api_page_is_this_table() {
        let page = include_str!("../../docs/API.md");
        let head = "| `code` | status | meaning | retry helps | may have executed |\n|---|---|---|---|---|\n";
        let (_, table) = page.split_once(head).expect("the page has the table");
        let (table, _) = table.split_once("\n\n").expect("text follows the table");
        assert_eq!(format!("{table}\n"), rows(), "replace the table by:\n{}", rows());
    }

    #[test]
    fn a_retry_after_is_sent_only_for_codes_whose_requests_can_be_repeated() {
        for code in ErrorCode::ALL {
            let info = code.info();
            assert!(info.retryable || !info.retry_after, "{code}");
            assert_eq!(info.retry_after, info.meaning.contains("`Retry-After`"), "{code}");
        }
    }
}
