//! The OpenAPI document and a page to read it, served from the binary: no network needed.

use super::problem::ServiceProblems;
use super::router::openapi_json;
use axum::Router;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::IntoResponse;
use std::sync::LazyLock;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where the page is; the first leads to the second.
pub(super) const PAGES: [&str; 2] = ["/docs", "/docs/"];

static DOCUMENT: LazyLock<String> = LazyLock::new(openapi_json);

/// This document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "get_openapi", tag = "service",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"),
        ServiceProblems,
    ),
)]
pub(super) async fn get_openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT.as_str())
}

/// `/docs`: the document as a page to browse and try.
pub(super) fn pages() -> Router {
    SwaggerUi::new("/docs").config(Config::from("/openapi.json")).into()
}
