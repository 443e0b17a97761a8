//! What a handler gets: the VM, the deadline, the body.

use super::Api;
use super::problem::ApiError;
use crate::vm::Vm;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use minions_api::exec::MAX_TIMEOUT_MS;
use minions_api::{ErrorCode, VmName};
use minions_proto::Invalid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use std::time::Duration;
use tokio::time::Instant;

/// The VM that the path names, looked up.
pub(super) struct TheVm(pub(super) Vm);

impl FromRequestParts<Api> for TheVm {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let name = Path::<String>::from_request_parts(parts, api)
            .await
            .map_err(|error| ApiError::malformed(Some("vm".into()), error.body_text()))?;
        let name: VmName = name.parse().map_err(|error| {
            ApiError::malformed(Some("vm".into()), format!("`vm` is {:?}: {error}", name.0))
        })?;
        let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
        vms.get(&name).cloned().map(Self).ok_or_else(|| ApiError::vm_not_found(name))
    }
}

/// The query of a call that reaches a guest.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CallParams {
    /// Milliseconds after which the caller gets an `agent_timeout` instead of an answer.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// How long the caller wants to wait.
pub(super) struct Patience(Option<Duration>);

impl Patience {
    /// The caller's wish, or `default`, from now on.
    pub(super) fn deadline_or(&self, default: Duration) -> Instant {
        Instant::now() + self.0.unwrap_or(default)
    }

    /// What the caller asked for.
    pub(super) fn asked(&self) -> Option<Duration> {
        self.0
    }
}

impl FromRequestParts<Api> for Patience {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let Query(params) = Query::<CallParams>::from_request_parts(parts, api)
            .await
            .map_err(|error| unfit_query(&error.body_text()))?;
        match params.timeout_ms {
            None => Ok(Self(None)),
            Some(ms @ 1..=MAX_TIMEOUT_MS) => Ok(Self(Some(Duration::from_millis(ms)))),
            Some(ms) => Err(ApiError::malformed(
                Some("timeout_ms".into()),
                format!("`timeout_ms` is {ms}: must be 1 to {MAX_TIMEOUT_MS}"),
            )),
        }
    }
}

/// axum says "Failed to deserialize query string: FIELD: REASON".
fn unfit_query(text: &str) -> ApiError {
    let reason = text.split_once(": ").map_or(text, |(_, reason)| reason);
    let field = reason.split_once(": ").map(|(field, _)| field.to_owned());
    ApiError::malformed(field, format!("the query does not fit: {reason}"))
}

/// A JSON body, said to be one.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::of(
                ErrorCode::UnsupportedMediaType,
                "the body must be JSON, and said to be: `Content-Type: application/json`",
            ));
        }
        let body = Bytes::from_request(request, api).await.map_err(|error| unreadable(&error))?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        let value =
            serde_path_to_error::deserialize(&mut json).map_err(|error| not_the_shape(&error))?;
        json.end().map_err(|error| {
            ApiError::malformed(None, format!("the body goes on behind its JSON: {error}"))
        })?;
        Ok(Self(value))
    }
}

/// A page of another origin can send a form or plain text without being asked; this it can't.
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.map(|value| value.split(';').next().unwrap_or_default().trim());
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

fn unreadable(error: &BytesRejection) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ApiError::of(ErrorCode::PayloadTooLarge, "the body is longer than 2 MiB")
    } else {
        ApiError::malformed(None, "the body could not be read to its end")
    }
}

/// 400 if it isn't JSON, 422 with the field's name if it is, but not this.
fn not_the_shape(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let what = error.inner();
    if !what.is_data() {
        return ApiError::malformed(None, format!("the body is not JSON: {what}"));
    }
    let path = error.path();
    let named = path.iter().any(|segment| !matches!(segment, Segment::Unknown));
    let field = if named {
        path.to_string()
    } else {
        field_in(&what.to_string()).unwrap_or_else(|| "body".into())
    };
    ApiError::invalid(&Invalid::new(field, format!("does not fit: {what}")))
}

/// serde knows which field is missing or unknown only in its message: "missing field `command`".
fn field_in(message: &str) -> Option<String> {
    let (_, rest) = message.split_once(" field `")?;
    rest.split_once('`').map(|(field, _)| field.to_owned())
}
