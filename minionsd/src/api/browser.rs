//! Protection against cross-site requests from browsers.
//!
//! A page of any origin can make its visitor's browser send requests to a loopback address. Requests that change
//! something must therefore come from a page of this daemon, or from no page at all. Browsers report the source of a
//! request in `Origin` and `Sec-Fetch-Site`, which no page can forge.
//!
//! Pages of other origins cannot read either: without CORS headers their browser does not show them the reply, but
//! the guest would be contacted all the same, as often as the page likes. Only a link to one of the daemon's own
//! pages is allowed. A link to a route of the interface is refused, because a page can open links without its
//! visitor; a person types or copies the address.
//!
//! Only origins named in the configuration get CORS headers and may also change something: their pages act on behalf
//! of their visitors.

use super::auth::Peer;
use super::files::{EXEC_ID, FILE_INFO};
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

/// Header that prevents other origins from embedding a reply, for example as an image or script. It does not apply
/// to CORS requests.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Content security policy of replies that are not pages: they load nothing and cannot be framed.
const NOTHING: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'");

/// Content security policy of the documentation page: only its own files. Its scripts set styles, and its style
/// sheet contains small images.
const OWN_FILES: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// Content security policy of the dashboard: only its own files and its own daemon, and no text as markup.
const DASHBOARD: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

/// `Access-Control-Max-Age`: time for which browsers cache a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// Origins of other pages with the same permissions as the daemon's own pages.
#[derive(Debug, Clone)]
pub(super) struct AllowedOrigins(Arc<[HeaderValue]>);

impl AllowedOrigins {
    pub(super) fn new(config: &Config) -> Self {
        // Cannot fail: the configuration accepts only ASCII origins.
        let origins = config.allowed_origins.iter().filter_map(|origin| origin.parse().ok());
        Self(origins.collect())
    }

    /// Refuses a request from a page of another origin.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let over_tcp =
            request.extensions().get::<Arc<Peer>>().is_none_or(|peer| peer.may_be_a_browser());
        if !over_tcp || self.allow(request.headers()) {
            return Ok(());
        }
        if !changes_something(request) && opens_our_page(request) {
            return Ok(());
        }
        from_our_own_page(request.headers(), super::host::asked_for(request).as_ref())
    }

    fn allow(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        // Exactly one header: browsers never send a second one.
        origins.next().is_some_and(|origin| self.0.contains(origin)) && origins.next().is_none()
    }

    /// Returns the CORS layer for the configured origins; `None` if there are none.
    pub(super) fn cors(&self) -> Option<CorsLayer> {
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.0.iter().cloned()))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([
                header::ACCEPT,
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_MATCH,
                HeaderName::from_static("if-incarnation"),
                header::IF_NONE_MATCH,
                header::IF_RANGE,
                header::RANGE,
                X_REQUEST_ID,
            ])
            .expose_headers([
                header::ACCEPT_RANGES,
                header::CONTENT_RANGE,
                header::ETAG,
                header::RETRY_AFTER,
                EXEC_ID,
                FILE_INFO,
                X_REQUEST_ID,
            ])
            .allow_private_network(true)
            .max_age(PREFLIGHT_AGE);
        (!self.0.is_empty()).then_some(layer)
    }
}

/// Returns the content security policy for replies of this path.
pub(super) fn policy(path: &str) -> HeaderValue {
    match path {
        path if path.starts_with("/docs") => OWN_FILES,
        path if dashboard::PATHS.contains(&path) => DASHBOARD,
        _ => NOTHING,
    }
}

/// Sets the security headers that every reply has.
pub(super) fn restrict(headers: &mut HeaderMap, policy: HeaderValue) {
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
}

/// Reports whether the request can change something. A WebSocket counts: it starts as a GET, and the same-origin
/// policy does not apply to it.
fn changes_something(request: &Request) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    !reads || request.headers().contains_key(header::UPGRADE)
}

/// Reports whether the request is a top-level navigation to one of the daemon's pages. Only browsers send these
/// headers.
fn opens_our_page(request: &Request) -> bool {
    let has = |name, value: &str| {
        request.headers().get(name).is_some_and(|sent: &HeaderValue| sent == value)
    };
    let path = request.uri().path();
    (path == dashboard::PAGE || docs::PAGES.contains(&path))
        && has(SEC_FETCH_MODE, "navigate")
        && has(SEC_FETCH_DEST, "document")
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

/// Checks `Sec-Fetch-Site`, the one header that browsers send with every request to a loopback address.
fn from_our_own_site(headers: &HeaderMap) -> Result<(), ApiError> {
    for site in headers.get_all(SEC_FETCH_SITE) {
        // `none`: the address was typed into the address bar.
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
            "requests from web pages of another origin are refused (`{header}`); open the address directly, or \
             add the page's origin to `allowed_origins`"
        ),
    )
}

/// Reports whether the origin has this authority. `null`, which sandboxed pages and files send, has none.
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
    fn requests_from_no_page_and_from_our_own_page_are_allowed() {
        assert!(allows(&[]));
        assert!(allows(&[(SEC_FETCH_SITE, "none")]));
        assert!(allows(&[
            (SEC_FETCH_SITE, "same-origin"),
            (header::ORIGIN, "http://localhost:7070")
        ]));
    }

    #[test]
    fn requests_from_a_page_of_another_origin_are_refused() {
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
