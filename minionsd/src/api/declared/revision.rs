//! Optimistic concurrency: revisions as `ETag`, `If-Match` and `If-None-Match`.

use super::super::problem::ApiError;
use super::super::state::ApiState;
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use minions_declare::IfRevision;
use serde::Serialize;

/// Revision that the request expects the item to have.
pub(in super::super) struct ExpectedRevision(pub(super) IfRevision);

impl FromRequestParts<ApiState> for ExpectedRevision {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        let matching = single(&parts.headers, &IF_MATCH)?;
        let missing = single(&parts.headers, &IF_NONE_MATCH)?;
        match (matching, missing) {
            (None, None) => Ok(Self(IfRevision::Any)),
            (Some("*"), None) => Ok(Self(IfRevision::Present)),
            (Some(tag), None) => revision(tag).map(IfRevision::Is).map(Self),
            (None, Some("*")) => Ok(Self(IfRevision::Missing)),
            (None, Some(_)) => {
                Err(malformed("If-None-Match", "must be `*`: the item must not exist"))
            }
            (Some(_), Some(_)) => Err(malformed("If-None-Match", "conflicts with `If-Match`")),
        }
    }
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(str::trim).map(Some).map_err(|_| {
                malformed(name.as_str(), "must be one ETag, as the reply to GET has it")
            })
        }
        (Some(_), Some(_)) => Err(malformed(name.as_str(), "is given twice")),
    }
}

fn revision(tag: &str) -> Result<u64, ApiError> {
    let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    number.and_then(|number| number.parse().ok()).ok_or_else(|| {
        malformed("If-Match", "must be one ETag, as the reply to GET has it, or `*`")
    })
}

fn malformed(header: &str, reason: &str) -> ApiError {
    ApiError::malformed(Some(header.to_owned()), format!("`{header}` {reason}"))
}

/// Builds a reply with the item's revision as its `ETag`.
pub(super) fn tagged<T: Serialize>(revision: u64, item: T) -> Response {
    let mut response = Json(item).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
