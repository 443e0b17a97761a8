//! `/`: the VMs of this host at a glance, for a browser. Three files in the binary, nothing from
//! anywhere else, and whatever a guest says is put in as text.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

/// Where the page itself is.
pub(super) const PAGE: &str = "/";

/// Where its files are.
pub(super) const PATHS: [&str; 3] = [PAGE, "/dashboard.css", "/dashboard.js"];

const FILES: [(&str, &str); 3] = [
    ("text/html; charset=utf-8", include_str!("dashboard.html")),
    ("text/css; charset=utf-8", include_str!("dashboard.css")),
    ("text/javascript; charset=utf-8", include_str!("dashboard.js")),
];

/// The pages. What they show comes from the same routes that everybody uses.
pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    PATHS.into_iter().zip(FILES).fold(Router::new(), |router, (path, (media_type, text))| {
        router.route(path, get(async move || file(media_type, text)))
    })
}

/// Another version of the daemon has other files under the same names.
fn file(media_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, media_type), (CACHE_CONTROL, "no-cache")], text)
}
