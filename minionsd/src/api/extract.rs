//! Extractors for handlers: the VM, the exec, the query, the deadline and the body.

use super::if_incarnation;
use super::problem::ApiError;
use super::state::ApiState;
use crate::vm::Vm;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use minions_api::exec::MAX_TIMEOUT_MS;
use minions_api::object_form::ObjectsOnly;
use minions_api::{ErrorCode, VmName};
use minions_proto::Invalid;
use minions_proto::json::check_depth;
use minions_proto::message::ExecId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use std::time::Duration;
use tokio::time::Instant;

/// The VM that the path names, looked up in the registry, with the precondition of the request.
pub(super) struct TheVm(pub(super) Vm);

impl FromRequestParts<ApiState> for TheVm {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, ApiError> {
        let name = path_parameter(parts, api, "vm").await?;
        let name: VmName = name.parse().map_err(|error| {
            ApiError::malformed(Some("vm".into()), format!("`vm` is {name:?}: {error}"))
        })?;
        let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
        let vm = vms.get(&name).cloned().ok_or_else(|| ApiError::vm_not_found(name))?;
        let only = if_incarnation::of(&parts.headers)?;
        Ok(Self(only.map_or_else(|| vm.clone(), |only| vm.with_precondition(only))))
    }
}

/// The exec id in the path. Only the agent knows whether this exec exists.
pub(super) struct TheExec(pub(super) ExecId);

impl FromRequestParts<ApiState> for TheExec {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, ApiError> {
        let id = path_parameter(parts, api, "id").await?;
        id.parse().map(Self).map_err(|invalid| ApiError::value(&invalid))
    }
}

/// Returns a parameter of the path, as text.
pub(super) async fn path_parameter(
    parts: &mut Parts,
    api: &ApiState,
    name: &str,
) -> Result<String, ApiError> {
    let unreadable = |why: String| ApiError::malformed(Some(name.to_owned()), why);
    let all = RawPathParams::from_request_parts(parts, api)
        .await
        .map_err(|error| unreadable(error.body_text()))?;
    let found = all.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(|| unreadable("missing from the path".into()))
}

/// A deserialized query; a failure names the invalid field.
pub(super) struct QueryParams<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, ApiError> {
        Query::<T>::from_request_parts(parts, api)
            .await
            .map(|Query(params)| Self(params))
            .map_err(|error| invalid_query(&error.body_text()))
    }
}

/// Query of a call to an agent.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CallParams {
    /// Milliseconds after which the caller gets an `agent_timeout` instead of an answer.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Time that the caller is willing to wait; `None` if the request does not set it.
#[derive(Debug)]
pub(super) struct CallerTimeout(Option<Duration>);

impl CallerTimeout {
    /// Validates the `timeout_ms` of a query.
    pub(super) fn of(timeout_ms: Option<u64>) -> Result<Self, ApiError> {
        milliseconds("timeout_ms", timeout_ms, 1).map(Self)
    }

    /// Returns the deadline: the caller's timeout, or `default`, from now on.
    pub(super) fn deadline_or(&self, default: Duration) -> Instant {
        Instant::now() + self.0.unwrap_or(default)
    }

    /// Returns the caller's timeout.
    pub(super) fn asked(&self) -> Option<Duration> {
        self.0
    }
}

impl FromRequestParts<ApiState> for CallerTimeout {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, ApiError> {
        let QueryParams(params) = QueryParams::<CallParams>::from_request_parts(parts, api).await?;
        Self::of(params.timeout_ms)
    }
}

/// Validates a duration in a query: from `least` milliseconds to one day.
pub(super) fn milliseconds(
    field: &str,
    ms: Option<u64>,
    least: u64,
) -> Result<Option<Duration>, ApiError> {
    match ms {
        Some(ms) if !(least..=MAX_TIMEOUT_MS).contains(&ms) => Err(ApiError::malformed(
            Some(field.to_owned()),
            format!("`{field}` is {ms}: must be {least} to {MAX_TIMEOUT_MS}"),
        )),
        ms => Ok(ms.map(Duration::from_millis)),
    }
}

/// Builds the problem for a query that cannot be deserialized. The field is parsed from axum's text, "Failed to
/// deserialize query string: FIELD: REASON".
fn invalid_query(text: &str) -> ApiError {
    let reason = text.split_once(": ").map_or(text, |(_, reason)| reason);
    let field = reason.split_once(": ").map(|(field, _)| field.to_owned());
    ApiError::malformed(field, format!("invalid query: {reason}"))
}

/// A JSON body with the content type `application/json`.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &ApiState) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::of(
                ErrorCode::UnsupportedMediaType,
                "the body must be JSON with the header `Content-Type: application/json`",
            ));
        }
        // Checked before the body is read: a client that sent `Expect: 100-continue` then does not send the body.
        if declared_length_exceeds_limit(&request) {
            return Err(too_long());
        }
        let body = Bytes::from_request(request, api).await.map_err(|error| unreadable(&error))?;
        from_json(&body).map(Self)
    }
}

/// Deserializes JSON from a client; a failure names the invalid field.
pub(super) fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    check_depth(text)
        .map_err(|error| ApiError::malformed(None, format!("invalid body: {error}")))?;
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(ObjectsOnly(&mut json))
        .map_err(|error| invalid_json(&error))?;
    json.end().map_err(|error| {
        ApiError::malformed(None, format!("unexpected data after the JSON body: {error}"))
    })?;
    Ok(value)
}

/// Reports whether the content type is JSON. A page of another origin can send a form or plain text without a CORS
/// preflight, but not this type.
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.map(|value| value.split(';').next().unwrap_or_default().trim());
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

/// Maximum length of a route's body in bytes; stored in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit(pub(super) usize);

fn declared_length_exceeds_limit(request: &Request) -> bool {
    let header = request.headers().get(header::CONTENT_LENGTH);
    let length = header.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let limit = request.extensions().get::<BodyLimit>();
    matches!((length, limit), (Some(length), Some(limit)) if length > limit.0)
}

fn too_long() -> ApiError {
    ApiError::of(
        ErrorCode::PayloadTooLarge,
        "the body is too long: the limit is 8 MiB for running a program and for applying declarations, 2 MiB otherwise",
    )
}

fn unreadable(error: &BytesRejection) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        too_long()
    } else {
        ApiError::malformed(None, "the body ended early or could not be read")
    }
}

/// Builds the problem for a body that cannot be deserialized: 400 if it is not JSON; 422 with the field's name if it
/// is JSON of another shape.
fn invalid_json(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let cause = error.inner();
    if !cause.is_data() {
        return ApiError::malformed(None, format!("the body is not valid JSON: {cause}"));
    }
    let path = error.path();
    let named = path.iter().any(|segment| !matches!(segment, Segment::Unknown));
    let field = if named {
        path.to_string()
    } else {
        field_in(&cause.to_string()).unwrap_or_else(|| "body".into())
    };
    ApiError::invalid(&Invalid::new(field, format!("is invalid: {cause}")))
}

/// Returns the field in serde's message, such as "missing field `command`": serde reports a missing or unknown field
/// only there.
fn field_in(message: &str) -> Option<String> {
    let (_, rest) = message.split_once(" field `")?;
    rest.split_once('`').map(|(field, _)| field.to_owned())
}
