//! What a browser may be tricked into.
//!
//! A page of any origin can make its visitor's browser send requests to a loopback address. What
//! changes something must therefore come from a page of ours, or from no page at all: browsers say
//! where a request comes from in `Origin` and `Sec-Fetch-Site`, which no page can forge.
//!
//! Reading is refused to pages of other origins as well: without CORS headers their browser doesn't show them
//! the answer, but a guest would be asked all the same, as often as the page likes. What remains is a link to one
//! of our own pages. A link to a route of the interface is refused, because a page can open links by itself; a
//! person types the address, or copies it.
//!
//! Only origins that the configuration names get CORS headers, and may also change something: their pages act
//! for whoever has them open.

use super::auth::Peer;
use super::problem::ApiError;
use super::request_id::X_REQUEST_ID;
use super::{dashboard, docs};
use crate::config::Config;
use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, uri::Authority};
use minions_api::ErrorCode;
use std::sync::Arc;
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Which other pages may have a reply as a picture, script or the like. CORS replies are not held to it.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// For what isn't a page: nothing may be loaded, and nobody may frame it.
const NOTHING: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'");

/// For the documentation page: only its own files. It sets styles from its scripts, and has small
/// pictures in its style sheet.
const OWN_FILES: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// For the dashboard: only its own files, its own daemon, and no text that becomes markup.
const DASHBOARD: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

/// How long a browser may remember that it asked whether it may.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// Origins of other pages that may do what our own may.
#[derive(Debug, Clone)]
pub(super) struct AllowedOrigins(Arc<[HeaderValue]>);

impl AllowedOrigins {
    pub(super) fn new(config: &Config) -> Self {
        // What the configuration's check has let through is plain ASCII.
        let origins = config.allowed_origins.iter().filter_map(|origin| origin.parse().ok());
        Self(origins.collect())
    }

    /// Refuses what a page of another origin sent.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let over_tcp =
            request.extensions().get::<Arc<Peer>>().is_none_or(|peer| peer.may_be_a_browser());
        if !over_tcp || self.allow(request.headers()) {
            return Ok(());
        }
        if changes_something(request) {
            let host = super::host::asked_for(request);
            return from_our_own_page(request.headers(), host.as_ref());
        }
        if opens_our_page(request) {
            return Ok(());
        }
        from_our_own_site(request.headers())
    }

    fn allow(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        // One, and a known one: browsers send no second.
        origins.next().is_some_and(|origin| self.0.contains(origin)) && origins.next().is_none()
    }

    /// Tells those pages' browsers that they may. Without any there is nothing to tell.
    pub(super) fn cors(&self) -> Option<CorsLayer> {
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.0.iter().cloned()))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([
                header::ACCEPT,
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                X_REQUEST_ID,
            ])
            .expose_headers([X_REQUEST_ID, header::RETRY_AFTER])
            .allow_private_network(true)
            .max_age(PREFLIGHT_AGE);
        (!self.0.is_empty()).then_some(layer)
    }
}

/// What a reply of this path may do in a browser.
pub(super) fn policy(path: &str) -> HeaderValue {
    match path {
        path if path.starts_with("/docs") => OWN_FILES,
        path if dashboard::PATHS.contains(&path) => DASHBOARD,
        _ => NOTHING,
    }
}

/// Tells browsers what a reply may do, whatever the reply.
pub(super) fn restrict(headers: &mut HeaderMap, policy: HeaderValue) {
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
}

/// A WebSocket begins as a GET, and is held to no same-origin policy.
fn changes_something(request: &Request) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    !reads || request.headers().contains_key(header::UPGRADE)
}

/// A link to one of our pages, followed in a tab of its own. Clients other than browsers send none of this.
fn opens_our_page(request: &Request) -> bool {
    let says = |name, value: &str| {
        request.headers().get(name).is_some_and(|said: &HeaderValue| said == value)
    };
    let path = request.uri().path();
    (path == dashboard::PAGE || docs::PAGES.contains(&path))
        && says(SEC_FETCH_MODE, "navigate")
        && says(SEC_FETCH_DEST, "document")
}

fn from_our_own_page(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), ApiError> {
    from_our_own_site(headers)?;
    for origin in headers.get_all(header::ORIGIN) {
        if host.is_none_or(|host| !is_origin_of(origin, host)) {
            return Err(from_another_page("Origin"));
        }
    }
    Ok(())
}

/// Of all that a browser says, `Sec-Fetch-Site` is there for every request to a loopback address.
fn from_our_own_site(headers: &HeaderMap) -> Result<(), ApiError> {
    for site in headers.get_all(SEC_FETCH_SITE) {
        // `none`: typed into the address bar.
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return Err(from_another_page("Sec-Fetch-Site"));
        }
    }
    Ok(())
}

fn from_another_page(header: &str) -> ApiError {
    ApiError::of(
        ErrorCode::Forbidden,
        format!(
            "a page of another origin sent this request (`{header}`), which is not allowed; open the address \
             itself, or add the page's origin to `allowed_origins`"
        ),
    )
}

/// `null`, which a sandboxed page or a file sends, is nobody's.
fn is_origin_of(origin: &HeaderValue, host: &Authority) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| {
        origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
    });
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        from_our_own_page(&headers.collect(), Some(&Authority::from_static("localhost:7070")))
            .is_ok()
    }

    #[test]
    fn no_page_at_all_and_our_own_page_may() {
        assert!(allows(&[]));
        assert!(allows(&[(SEC_FETCH_SITE, "none")]));
        assert!(allows(&[
            (SEC_FETCH_SITE, "same-origin"),
            (header::ORIGIN, "http://localhost:7070")
        ]));
    }

    #[test]
    fn a_page_of_another_origin_may_not() {
        for site in ["cross-site", "same-site", "", "same-origin, none"] {
            assert!(!allows(&[(SEC_FETCH_SITE, site)]), "{site:?}");
        }
        for origin in [
            "null",
            "http://localhost:7071",
            "http://localhost",
            "http://evil.example",
            "http://localhost:7070.evil.example",
            "localhost:7070",
            "",
        ] {
            assert!(!allows(&[(header::ORIGIN, origin)]), "{origin:?}");
        }
    }
}
