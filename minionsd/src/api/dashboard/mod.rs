//! `/`: the dashboard, an overview of this host's VMs for browsers. It consists of three files embedded in the binary
//! and loads nothing else. Data from guests is only inserted as text.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

/// Path of the page.
pub(super) const PAGE: &str = "/";

/// Paths of the page and its files, in the order of [`FILES`].
pub(super) const PATHS: [&str; 3] = [PAGE, "/dashboard.css", "/dashboard.js"];

const FILES: [(&str, &str); 3] = [
    ("text/html; charset=utf-8", include_str!("dashboard.html")),
    ("text/css; charset=utf-8", include_str!("dashboard.css")),
    ("text/javascript; charset=utf-8", include_str!("dashboard.js")),
];

/// Returns the routes of the dashboard. The page gets its data from the public routes.
pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    PATHS.into_iter().zip(FILES).fold(Router::new(), |router, (path, (media_type, text))| {
        router.route(path, get(async move || file(media_type, text)))
    })
}

/// Returns a file that browsers must revalidate, because another version of the daemon has other files under the same
/// names.
fn file(media_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, media_type), (CACHE_CONTROL, "no-cache")], text)
}
