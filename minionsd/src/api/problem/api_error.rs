//! A failed request, and its response.

use crate::agent::client::RETRY_AFTER;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minions_api::problem::MEDIA_TYPE;
use minions_api::{ErrorCode, Problem, VmName};
use minions_proto::Invalid;
use std::any::Any;

/// A failed request. Converted to a response, it is only a status and a [`Problem`] in the extensions: the
/// outermost layer, which knows the request id, writes the body ([`into_body`]).
#[derive(Debug)]
pub(in super::super) struct ApiError(pub(super) Box<Problem>);

impl ApiError {
    /// Builds a 400: the request cannot be parsed.
    pub(in super::super) fn malformed(field: Option<String>, detail: impl Into<String>) -> Self {
        let mut problem = Problem::new(ErrorCode::InvalidRequest, detail);
        problem.status = 400;
        problem.field = field;
        Self(Box::new(problem))
    }

    /// Builds a 422: the request was parsed, but a value is not allowed.
    pub(in super::super) fn invalid(invalid: &Invalid) -> Self {
        let mut problem = Problem::new(ErrorCode::InvalidRequest, invalid.to_string());
        problem.field = Some(invalid.field.clone());
        Self(Box::new(problem))
    }

    /// Builds the problem for a value that is not allowed, with the specific code of its field if there is one.
    pub(in super::super) fn value(invalid: &Invalid) -> Self {
        let mut problem = Problem::new(code_of_value(&invalid.field), invalid.to_string());
        problem.field = Some(invalid.field.clone());
        Self(Box::new(problem))
    }

    pub(in super::super) fn of(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }

    pub(in super::super) fn vm_not_found(vm: VmName) -> Self {
        let detail = format!("no VM named {vm} has a socket on this host; GET /vms lists all VMs");
        Self::of(ErrorCode::VmNotFound, detail).about(vm)
    }

    pub(in super::super) fn no_such_path() -> Self {
        Self::of(ErrorCode::NotFound, "no route has this path; see /openapi.json or /docs")
    }

    pub(in super::super) fn method_not_allowed() -> Self {
        Self::of(ErrorCode::MethodNotAllowed, "this path does not support the request's method")
    }

    /// Builds the problem for requests before the first scan of the socket directory is complete.
    pub(in super::super) fn starting() -> Self {
        Self::of(
            ErrorCode::Overloaded,
            "minionsd is starting and has not scanned the socket directory yet; retry shortly",
        )
    }

    pub(in super::super) fn shutting_down() -> Self {
        Self::of(ErrorCode::ShuttingDown, "minionsd is stopping")
    }

    /// Builds the error for a complete problem.
    pub(in super::super) fn from_problem(problem: Problem) -> Self {
        Self(Box::new(problem))
    }

    /// Sets the VM that the problem is about.
    pub(in super::super) fn about(mut self, vm: VmName) -> Self {
        self.0.vm = Some(vm);
        self
    }

    /// Prefixes the problem's field, if there is one, with `outer`.
    pub(in super::super) fn within(mut self, outer: &str) -> Self {
        if let Some(field) = &mut self.0.field {
            *field = format!("{outer}.{field}");
        }
        self
    }

    /// Sets the problem's field.
    pub(in super::super) fn within_field(mut self, field: &str) -> Self {
        self.0.field = Some(field.to_owned());
        self
    }

    /// Returns the complete problem, for use other than as the body of a response.
    pub(in super::super) fn into_problem(self, request_id: &str) -> Problem {
        let mut problem = *self.0;
        request_id.clone_into(&mut problem.request_id);
        problem
    }

    pub(in super::super) fn code(&self) -> ErrorCode {
        self.0.code
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if self.0.code.info().retry_after {
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
pub(in super::super) fn problem_in(response: &Response) -> Option<ErrorCode> {
    response.extensions().get::<Box<Problem>>().map(|problem| problem.code)
}

/// Writes the body of a response that was made from an [`ApiError`]; returns other responses unchanged.
pub(in super::super) fn into_body(mut response: Response, request_id: &str) -> Response {
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
pub(in super::super) fn catch_panic(panic: &(dyn Any + Send)) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    ApiError::of(ErrorCode::Internal, "bug in minionsd; see its log for this request id")
        .into_response()
}

/// Returns the code for an invalid value of `field`.
pub(super) fn code_of_value(field: &str) -> ErrorCode {
    match field.split('.').next() {
        Some("env") => ErrorCode::InvalidEnv,
        Some("signal") => ErrorCode::InvalidSignal,
        Some("id") => ErrorCode::InvalidExecId,
        _ => ErrorCode::InvalidRequest,
    }
}
