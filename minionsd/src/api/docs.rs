//! The OpenAPI document and a page to browse it. Both are embedded in the binary, so no network is needed.

use super::problem::ServiceProblems;
use super::state::ApiState;
use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Paths of the page; the first redirects to the second.
pub(super) const PAGES: [&str; 2] = ["/docs", "/docs/"];

/// Get this document
///
/// The OpenAPI document is generated from the routes that the daemon serves.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "get_openapi", tag = "service",
    responses(
        (status = 200, description = "OpenAPI 3.1 document", body = Object, content_type = "application/json"),
        ServiceProblems,
    ),
)]
pub(super) async fn get_openapi(State(api): State<ApiState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], (api.document)())
}

/// Returns the routes of `/docs`, where the document can be browsed and tried. All links are relative, so that the
/// page also works behind a reverse proxy that adds a path prefix.
pub(super) fn pages() -> Router {
    let pages: Router = SwaggerUi::new("/docs").config(Config::from("../openapi.json")).into();
    pages.layer(map_response(async |mut response: Response| {
        if response.headers().get(LOCATION).is_some_and(|location| location == "/docs/") {
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("docs/"));
        }
        response
    }))
}
