//! The caller of one request: its identity and its scopes.

use super::super::problem::ApiError;
use super::peer::Peer;
use super::policy::Policy;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use minions_api::ErrorCode;
use minions_api::service::{Identity, Scope};
use std::sync::Arc;

/// The caller of one request.
#[derive(Debug, Clone)]
pub(in super::super) struct Caller {
    peer: Arc<Peer>,
    has_token: bool,
}

impl Caller {
    /// Determines the caller of `request`, without asking the kernel yet.
    ///
    /// # Errors
    ///
    /// The bearer token is invalid, or the request has no [`Peer`].
    pub(in super::super) fn of(request: &Request, policy: &Policy) -> Result<Self, ApiError> {
        let peer = Self::peer_of(request)?;
        let has_token = match (request.headers().get(AUTHORIZATION), &policy.token) {
            (None, _) => false,
            (Some(shown), Some(token)) if token.is_shown_by(shown.as_bytes()) => true,
            (Some(sent), _) => {
                return Err(unauthenticated(if is_empty_token(sent) {
                    "the bearer token is empty: can you read the token's file? Without `Authorization`, the Unix \
                     socket identifies you"
                } else {
                    "the bearer token does not match this daemon's token; without `Authorization`, the Unix \
                     socket identifies you"
                }));
            }
        };
        Ok(Self { peer, has_token })
    }

    /// Returns the peer of the request's connection.
    ///
    /// # Errors
    ///
    /// The request has no peer, because it did not come from a listener; this is a bug.
    pub(in super::super) fn peer_of(request: &Request) -> Result<Arc<Peer>, ApiError> {
        let peer = request.extensions().get::<Arc<Peer>>().cloned();
        peer.ok_or_else(|| ApiError::of(ErrorCode::Internal, "the request has no peer"))
    }

    pub(in super::super) fn has_token(&self) -> bool {
        self.has_token
    }

    /// Returns the caller's identity. Asks the kernel once per connection.
    pub(in super::super) async fn identity(&self) -> Identity {
        if self.has_token { Identity::Token } else { self.peer.identity().await }
    }

    /// Returns all scopes of the caller.
    pub(in super::super) async fn scopes(&self, policy: &Policy) -> Vec<Scope> {
        if self.may_operate(policy).await {
            vec![Scope::Read, Scope::Operate]
        } else if self.may_read_unidentified(policy) {
            vec![Scope::Read]
        } else {
            Vec::new()
        }
    }

    /// Refuses a caller without `scope`.
    ///
    /// # Errors
    ///
    /// `unauthenticated` or `forbidden`; the detail names every way to get the scope.
    pub(in super::super) async fn require(
        &self,
        scope: Scope,
        policy: &Policy,
    ) -> Result<(), ApiError> {
        // Most reads need neither the kernel nor the user database.
        if scope == Scope::Read && (self.has_token || self.may_read_unidentified(policy)) {
            return Ok(());
        }
        if self.may_operate(policy).await {
            return Ok(());
        }
        Err(self.refusal(scope, policy).await)
    }

    async fn may_operate(&self, policy: &Policy) -> bool {
        if self.has_token {
            return true;
        }
        if !policy.uid_authorizes(&self.peer) {
            return false;
        }
        policy.operators.include(&self.peer.identity().await, self.peer.groups()).await
    }

    /// Reports whether the connection alone allows reading, for any user of this host.
    fn may_read_unidentified(&self, policy: &Policy) -> bool {
        policy.opens_reads(&self.peer)
    }

    async fn refusal(&self, scope: Scope, policy: &Policy) -> ApiError {
        let identity = self.identity().await;
        let detail = policy.refusal(scope, &self.peer, &identity);
        match (scope, identity) {
            // 401, because a token would be accepted (RFC 9110, 15.5.2).
            (Scope::Read, _) | (Scope::Operate, Identity::Unknown) => unauthenticated(&detail),
            (Scope::Operate, Identity::User { .. } | Identity::Token) => {
                ApiError::of(ErrorCode::Forbidden, detail)
            }
        }
    }
}

/// Reports whether the header has no token, as with `Bearer $(cat FILE)` of a file that cannot be read.
fn is_empty_token(authorization: &HeaderValue) -> bool {
    let shown = authorization.as_bytes().trim_ascii();
    shown.is_empty() || shown.eq_ignore_ascii_case(b"bearer")
}

fn unauthenticated(detail: &str) -> ApiError {
    ApiError::of(ErrorCode::Unauthenticated, detail)
}
