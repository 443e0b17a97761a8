//! Conversion of domain errors to problem details (RFC 9457).

use crate::agent::CallError;
use crate::agent::client::RETRY_AFTER;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minions_api::problem::MEDIA_TYPE;
use minions_api::{ErrorCode, Problem, VmName};
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::frame::EncodeError;
use minions_proto::{AgentError, Invalid};
use std::any::Any;
use std::collections::BTreeMap;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::{Response as DocumentedResponse, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};

/// A failed request. Converted to a response, it is only a status and a [`Problem`] in the extensions: the
/// outermost layer, which knows the request id, writes the body ([`into_body`]).
#[derive(Debug)]
pub(super) struct ApiError(Box<Problem>);

impl ApiError {
    /// Builds a 400: the request cannot be parsed.
    pub(super) fn malformed(field: Option<String>, detail: impl Into<String>) -> Self {
        let mut problem = Problem::new(ErrorCode::InvalidRequest, detail);
        problem.status = 400;
        problem.field = field;
        Self(Box::new(problem))
    }

    /// Builds a 422: the request was parsed, but a value is not allowed.
    pub(super) fn invalid(invalid: &Invalid) -> Self {
        let mut problem = Problem::new(ErrorCode::InvalidRequest, invalid.to_string());
        problem.field = Some(invalid.field.clone());
        Self(Box::new(problem))
    }

    /// Builds the problem for a value that is not allowed, with the specific code of its field if there is one.
    pub(super) fn value(invalid: &Invalid) -> Self {
        let mut problem = Problem::new(code_of_value(&invalid.field), invalid.to_string());
        problem.field = Some(invalid.field.clone());
        Self(Box::new(problem))
    }

    pub(super) fn of(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }

    pub(super) fn vm_not_found(vm: VmName) -> Self {
        let detail = format!("no VM named {vm} has a socket on this host; GET /vms lists all VMs");
        Self::of(ErrorCode::VmNotFound, detail).about(vm)
    }

    pub(super) fn no_such_path() -> Self {
        Self::of(ErrorCode::NotFound, "no route has this path; see /openapi.json or /docs")
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::of(ErrorCode::MethodNotAllowed, "this path does not support the request's method")
    }

    /// Builds the problem for requests before the first scan of the socket directory is complete.
    pub(super) fn starting() -> Self {
        Self::of(
            ErrorCode::Overloaded,
            "minionsd is starting and has not scanned the socket directory yet; retry shortly",
        )
    }

    pub(super) fn shutting_down() -> Self {
        Self::of(ErrorCode::ShuttingDown, "minionsd is stopping")
    }

    /// Sets the VM that the problem is about.
    pub(super) fn about(mut self, vm: VmName) -> Self {
        self.0.vm = Some(vm);
        self
    }

    /// Prefixes the problem's field, if there is one, with `outer`.
    pub(super) fn within(mut self, outer: &str) -> Self {
        if let Some(field) = &mut self.0.field {
            *field = format!("{outer}.{field}");
        }
        self
    }

    /// Sets the problem's field.
    pub(super) fn within_field(mut self, field: &str) -> Self {
        self.0.field = Some(field.to_owned());
        self
    }

    /// Returns the complete problem, for use other than as the body of a response.
    pub(super) fn into_problem(self, request_id: &str) -> Problem {
        let mut problem = *self.0;
        request_id.clone_into(&mut problem.request_id);
        problem
    }

    pub(super) fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// Converts the failure to run a program in `vm`. A request that does not fit a frame becomes
    /// `argument_list_too_long`, because only the arguments and the environment can make it that long.
    pub(super) fn exec(vm: &VmName, error: CallError) -> Self {
        match error {
            CallError::Encode(EncodeError::Frame(_)) => Self::of(
                ErrorCode::ArgumentListTooLong,
                "arguments and environment are longer than 1 MiB when encoded; pass large data as input or in a file",
            )
            .about(vm.clone()),
            error => Self::call(vm, error),
        }
    }

    /// Converts the failure of a call to the agent of `vm`.
    pub(super) fn call(vm: &VmName, error: CallError) -> Self {
        let may_have_executed = error.may_have_executed();
        let mut problem = match error {
            CallError::Unreachable { failure, message } => {
                let mut problem = Problem::new(ErrorCode::AgentUnreachable, message);
                problem.failure = Some(failure);
                problem
            }
            CallError::Overloaded => Problem::new(
                ErrorCode::Overloaded,
                "all connections to this VM are in use; retry when another call has ended",
            ),
            CallError::Exhausted => Problem::new(
                ErrorCode::Overloaded,
                "minionsd has no file descriptor left for a connection to the VM; retry when other calls have \
                 ended, or raise the limit of open files",
            ),
            CallError::TimedOut { sent: true } => Problem::new(
                ErrorCode::AgentTimeout,
                "the agent did not answer before the deadline; the operation may still be running",
            ),
            CallError::TimedOut { sent: false } => Problem::new(
                ErrorCode::AgentTimeout,
                "no connection to the agent was available before the deadline; nothing was sent",
            ),
            CallError::Lost { sent } => {
                let detail = if sent {
                    "the connection to the agent was lost before the reply was complete"
                } else {
                    "the connection to the agent was lost before the request was sent"
                };
                Problem::new(ErrorCode::ConnectionLost, detail)
            }
            CallError::Protocol(error) => Problem::new(
                ErrorCode::AgentProtocolError,
                format!("the agent violated the protocol: {error}"),
            ),
            CallError::Agent(error) => refused(error),
            CallError::TooOld { needs, field } => {
                let detail =
                    format!("this agent version does not support {needs}; upgrade minions-agent");
                let mut problem = Problem::new(ErrorCode::AgentTooOld, detail);
                problem.field = field;
                problem
            }
            CallError::ExecLost { reason } => {
                let detail = format!("the program is lost: {reason}");
                Problem::new(ErrorCode::ConnectionLost, detail)
            }
            CallError::Stream(error) => Problem::new(
                ErrorCode::AgentProtocolError,
                format!("the agent violated the protocol: {error}"),
            ),
            CallError::NoRoom => Problem::new(
                ErrorCode::Overloaded,
                "minionsd's memory budget for replies and collected output is used up; retry later, stream the \
                 program's output, or keep less of it (`max_output_bytes`)",
            ),
            CallError::Encode(EncodeError::Frame(error)) => Problem::new(
                ErrorCode::PayloadTooLarge,
                format!("the request does not fit a frame: {error}"),
            ),
            CallError::Encode(EncodeError::Json(error)) => {
                Problem::new(ErrorCode::Internal, error.to_string())
            }
        };
        problem.vm = Some(vm.clone());
        problem.may_have_executed = may_have_executed;
        Self(Box::new(problem))
    }
}

/// HTTP status of an `agent_error` for an operation that the agent was started without: the answer is the same for
/// every retry and every caller.
const REFUSED_BY_THE_AGENT: u16 = 501;

/// Converts an error that the agent reported. A base agent sends no code, only the message.
fn refused(error: AgentError) -> Problem {
    let code = match error.code {
        Some(AgentCode::InvalidArgument) => {
            code_of_value(error.field.as_deref().unwrap_or_default())
        }
        Some(AgentCode::CommandNotFound) => ErrorCode::CommandNotFound,
        Some(AgentCode::CommandNotExecutable) => ErrorCode::CommandNotExecutable,
        Some(AgentCode::UserNotFound) => ErrorCode::UserNotFound,
        Some(AgentCode::CwdNotFound) => ErrorCode::CwdNotFound,
        Some(AgentCode::ArgumentListTooLong) => ErrorCode::ArgumentListTooLong,
        Some(AgentCode::ExecGone) => ErrorCode::ExecGone,
        Some(
            AgentCode::ExecConflict
            | AgentCode::ExecEnded
            | AgentCode::ExecNotEnded
            | AgentCode::TakenOver,
        ) => ErrorCode::ExecConflict,
        Some(AgentCode::NetworkFailed) => ErrorCode::NetworkFailed,
        Some(AgentCode::NetworkPending) => ErrorCode::NetworkPending,
        Some(AgentCode::NetworkChangeGone) => ErrorCode::NetworkChangeGone,
        Some(AgentCode::Busy) => ErrorCode::Overloaded,
        Some(AgentCode::Unsupported) => ErrorCode::AgentTooOld,
        // A frame of this daemon that the agent cannot read is the agent's error, not the caller's.
        Some(
            AgentCode::BadRequest
            | AgentCode::Forbidden
            | AgentCode::FrameTooLarge
            | AgentCode::ExecFailed
            | AgentCode::IoFailed
            | AgentCode::ClockFailed
            | AgentCode::Internal
            | AgentCode::Other,
        )
        | None => ErrorCode::AgentError,
    };
    let mut problem = Problem::new(code, error.message);
    if error.code == Some(AgentCode::Forbidden) {
        problem.status = REFUSED_BY_THE_AGENT;
    }
    problem.step = error.step;
    problem.restored = error.restored;
    problem.field = error.field.or_else(|| field_of(code).map(str::to_owned));
    problem.agent_code = error.code.and_then(|code| {
        serde_json::to_value(code).ok().and_then(|code| code.as_str().map(str::to_owned))
    });
    problem
}

/// Returns the code for an invalid value of `field`.
fn code_of_value(field: &str) -> ErrorCode {
    match field.split('.').next() {
        Some("env") => ErrorCode::InvalidEnv,
        Some("signal") => ErrorCode::InvalidSignal,
        Some("id") => ErrorCode::InvalidExecId,
        _ => ErrorCode::InvalidRequest,
    }
}

/// Returns the request field that a code refers to, if there is only one.
fn field_of(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::UserNotFound => Some("user"),
        ErrorCode::CwdNotFound => Some("cwd"),
        ErrorCode::ExecGone | ErrorCode::ExecConflict => Some("id"),
        _ => None,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if matches!(
            self.0.code,
            ErrorCode::Overloaded
                | ErrorCode::AuditUnavailable
                | ErrorCode::ShuttingDown
                | ErrorCode::AgentUnreachable
        ) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
        }
        if self.0.code == ErrorCode::Unauthenticated {
            let challenge = HeaderValue::from_static("Bearer realm=\"minionsd\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Returns the code of the problem in a response that was made from an [`ApiError`].
pub(super) fn problem_in(response: &Response) -> Option<ErrorCode> {
    response.extensions().get::<Box<Problem>>().map(|problem| problem.code)
}

/// Writes the body of a response that was made from an [`ApiError`]; returns other responses unchanged.
pub(super) fn into_body(mut response: Response, request_id: &str) -> Response {
    let Some(mut problem) = response.extensions_mut().remove::<Box<Problem>>() else {
        return response;
    };
    request_id.clone_into(&mut problem.request_id);
    // The router also sets `Allow` on responses with another status.
    let allow = response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok());
    if let (StatusCode::METHOD_NOT_ALLOWED, Some(allow)) = (response.status(), allow) {
        problem.detail = format!("{}; use {}", problem.detail, allow.replace(',', ", "));
    }
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

/// Returns the response for a handler that panicked: a 500 instead of a closed connection.
pub(super) fn catch_panic(panic: &(dyn Any + Send)) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    ApiError::of(ErrorCode::Internal, "bug in minionsd; see its log for this request id")
        .into_response()
}

/// Returns the documentation of the problems with these codes, one response per status.
fn documented(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<DocumentedResponse>> {
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status()).or_default().push(*code);
    }
    // Any request can be malformed.
    by_status.entry(400).or_default().push(ErrorCode::InvalidRequest);
    if codes.contains(&ErrorCode::AgentError) {
        by_status.entry(REFUSED_BY_THE_AGENT).or_default().push(ErrorCode::AgentError);
    }
    let schema = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = |codes: &[ErrorCode]| {
        let titles: Vec<_> =
            codes.iter().map(|code| format!("`{code}`: {}", code.title())).collect();
        ResponseBuilder::new()
            .description(titles.join("; "))
            .content(MEDIA_TYPE, schema.clone())
            .build()
    };
    by_status
        .into_iter()
        .map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes))))
        .collect()
}

/// Adds `audit_unavailable` to the documented 503 of an operation with the scope *operate*.
pub(super) fn document_refusal_without_audit(operation: &mut Operation) {
    let code = ErrorCode::AuditUnavailable;
    let response = operation.responses.responses.get_mut(&code.status().to_string());
    if let Some(RefOr::T(response)) = response {
        response.description = format!("{}; `{code}`: {}", response.description, code.title());
    }
}

/// Problems of any request.
const ANYWHERE: &[ErrorCode] =
    &[ErrorCode::Unauthenticated, ErrorCode::Forbidden, ErrorCode::Internal];

/// Problems of requests that name a VM.
const ABOUT_A_VM: &[ErrorCode] = &[
    ErrorCode::InvalidRequest,
    ErrorCode::VmNotFound,
    ErrorCode::Overloaded,
    ErrorCode::ShuttingDown,
];

/// Problems of calls to an agent.
const IN_A_GUEST: &[ErrorCode] = &[
    ErrorCode::AgentError,
    ErrorCode::AgentTooOld,
    ErrorCode::AgentProtocolError,
    ErrorCode::ConnectionLost,
    ErrorCode::AgentUnreachable,
    ErrorCode::AgentTimeout,
];

/// Problems of requests with a body.
const WITH_A_BODY: &[ErrorCode] = &[ErrorCode::PayloadTooLarge, ErrorCode::UnsupportedMediaType];

/// Problems of starting a program in a guest.
const WITH_A_PROGRAM: &[ErrorCode] = &[
    ErrorCode::CommandNotFound,
    ErrorCode::CommandNotExecutable,
    ErrorCode::ArgumentListTooLong,
    ErrorCode::UserNotFound,
    ErrorCode::CwdNotFound,
    ErrorCode::InvalidEnv,
];

/// Problems of an exec id.
const WITH_AN_ID: &[ErrorCode] =
    &[ErrorCode::InvalidExecId, ErrorCode::ExecGone, ErrorCode::ExecConflict];

/// Problems of a network change.
const WITH_A_NETWORK: &[ErrorCode] =
    &[ErrorCode::NetworkFailed, ErrorCode::NetworkPending, ErrorCode::NetworkChangeGone];

/// Problems of sending a signal.
const WITH_A_SIGNAL: &[ErrorCode] = &[ErrorCode::InvalidSignal];

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $($codes:expr),+;)+) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<DocumentedResponse>> {
                documented(&[$($codes),+].concat())
            }
        }
    )+};
}

problems! {
    /// Problems of a route that contacts no VM.
    ServiceProblems = ANYWHERE, &[ErrorCode::Overloaded, ErrorCode::ShuttingDown];
    /// Problems of a route that looks up a VM.
    VmProblems = ANYWHERE, ABOUT_A_VM;
    /// Problems of a route that calls an agent.
    GuestProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST;
    /// Problems of a route that calls an agent and takes a body.
    BodyProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY;
    /// Problems of a route that changes a network.
    NetworkProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY, WITH_A_NETWORK;
    /// Problems of a route that runs a program.
    ExecProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY, WITH_A_PROGRAM, WITH_AN_ID;
    /// Problems of a route that runs a program on many VMs. A failure on one VM is reported in its line, not as a
    /// problem of the request.
    ManyProblems = ANYWHERE, ABOUT_A_VM, WITH_A_BODY, &[ErrorCode::InvalidEnv, ErrorCode::InvalidExecId];
    /// Problems of a route that names an exec.
    IdProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_AN_ID;
    /// Problems of the route that sends a signal.
    SignalProblems = ANYWHERE, ABOUT_A_VM, IN_A_GUEST, WITH_A_BODY, WITH_AN_ID, WITH_A_SIGNAL;
}
