//! Check of the `Host` header.
//!
//! A web page can make its own name resolve to 127.0.0.1 and then talk to this daemon as if it were its own origin
//! (DNS rebinding). The browser still sends the page's name in `Host`, so only known names of this daemon are
//! accepted. Over the Unix socket, which browsers cannot use, any name is accepted.

use super::auth::Peer;
use super::problem::ApiError;
use crate::config::Config;
use axum::extract::Request;
use axum::http::header;
use http::uri::Authority;
use minions_api::ErrorCode;
use std::sync::Arc;

/// Accepted host names.
#[derive(Debug)]
pub(super) struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    pub(super) fn new(config: &Config) -> Self {
        let loopback = ["localhost", "127.0.0.1", "[::1]"].map(String::from);
        let bound = config.listen.map(|address| match address {
            std::net::SocketAddr::V4(v4) => v4.ip().to_string(),
            std::net::SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        });
        Self(loopback.into_iter().chain(bound).chain(config.allowed_hosts.clone()).collect())
    }

    /// Refuses a TCP request whose host is not an accepted name.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let peer = request.extensions().get::<Arc<Peer>>();
        if peer.is_some_and(|peer| !peer.may_be_a_browser()) {
            return Ok(());
        }
        match asked_for(request) {
            Some(authority) if self.allows(authority.host()) => Ok(()),
            Some(authority) => Err(ApiError::of(
                ErrorCode::Forbidden,
                format!(
                    "`Host` is {:?}, which is not a name of this daemon; use localhost, or add the name to \
                     `allowed_hosts`",
                    authority.host()
                ),
            )),
            None => Err(ApiError::malformed(
                Some("Host".into()),
                "the request has no valid `Host` header",
            )),
        }
    }

    fn allows(&self, host: &str) -> bool {
        self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// Returns the requested authority: from the single `Host` header of HTTP/1, or `:authority` of HTTP/2. An authority
/// with user information (`evil.example@localhost`) is rejected: clients do not send it, and it is easily mistaken for
/// another name.
pub(super) fn asked_for(request: &Request) -> Option<Authority> {
    let authority = match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => {
            let mut hosts = request.headers().get_all(header::HOST).iter();
            match (hosts.next(), hosts.next()) {
                (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
                _ => None,
            }
        }
    };
    authority.filter(|authority| !authority.as_str().contains('@'))
}
