//! Who may do what.
//!
//! ```text
//!  connection ─▶ Peer: Unix credentials, or the uid behind a loopback TCP connection
//!  request    ─▶ Caller: a bearer token if there is one, else the peer
//!  route      ─▶ Scope: declared once in the route list, checked here
//! ```
//!
//! * *read*: whoever can connect to the Unix socket or to a loopback address.
//! * *operate*: root, the daemon's own uid, members of the operators' group, and the bearer token.
//!
//! A wrong token is refused even where no token would be needed: who shows one means it.

mod operators;
mod peer;
mod sock_diag;
mod token;

pub(crate) use operators::Operators;
pub(crate) use peer::Peer;
pub(crate) use token::Token;
pub use token::TokenError;

use super::Api;
use super::audit;
use super::problem::ApiError;
use super::service;
use crate::metrics::RouteMeter;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use minions_api::ErrorCode;
use minions_api::service::{Identity, Scope};
use std::sync::Arc;

/// What identities are judged by. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) operators: Arc<Operators>,
    pub(crate) token: Option<Token>,
}

/// Who asks: found out as far as the route needs it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    peer: Arc<Peer>,
    token: bool,
}

impl Caller {
    /// Whom a request belongs to.
    ///
    /// # Errors
    ///
    /// A token that isn't ours, or a request that didn't come over one of our listeners.
    pub(super) fn of(request: &Request, policy: &Policy) -> Result<Self, ApiError> {
        let peer = peer_of(request)?;
        let shown = request.headers().get(AUTHORIZATION);
        let token = match (shown, &policy.token) {
            (None, _) => false,
            (Some(shown), Some(token)) if token.is_shown_by(shown.as_bytes()) => true,
            (Some(_), _) => return Err(unauthenticated("the bearer token is not this daemon's")),
        };
        Ok(Self { peer, token })
    }

    /// Who that is. Asks the kernel, once a connection.
    pub(super) async fn identity(&self) -> Identity {
        if self.token { Identity::Token } else { self.peer.identity().await }
    }

    /// What they may do.
    pub(super) async fn scopes(&self, policy: &Policy) -> Vec<Scope> {
        let identity = self.identity().await;
        if self.token || policy.operators.include(&identity).await {
            vec![Scope::Read, Scope::Operate]
        } else if self.peer.is_local() {
            vec![Scope::Read]
        } else {
            Vec::new()
        }
    }

    async fn require(&self, scope: Scope, policy: &Policy) -> Result<(), ApiError> {
        // What every local caller may do needs no question to the kernel.
        if scope == Scope::Read && (self.token || self.peer.is_local()) {
            return Ok(());
        }
        if self.scopes(policy).await.contains(&scope) {
            return Ok(());
        }
        match self.identity().await {
            Identity::Unknown => Err(unauthenticated(
                "this needs to be known who you are: use the Unix socket, or a bearer token",
            )),
            Identity::User { uid } => Err(ApiError::of(
                ErrorCode::Forbidden,
                format!(
                    "user {uid} may read, but not operate: be root or in the group {}, or use a \
                     bearer token",
                    policy.operators.group()
                ),
            )),
            Identity::Token => Err(ApiError::of(ErrorCode::Internal, "the token operates")),
        }
    }
}

fn peer_of(request: &Request) -> Result<Arc<Peer>, ApiError> {
    let peer = request.extensions().get::<Arc<Peer>>().cloned();
    peer.ok_or_else(|| ApiError::of(ErrorCode::Internal, "no peer"))
}

fn unauthenticated(detail: &str) -> ApiError {
    ApiError::of(ErrorCode::Unauthenticated, detail)
}

/// What a route's layer needs. A cheap clone.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) api: Api,
    /// Of this route. The outermost layer, which knows how long a request took, finds it in the reply.
    pub(super) meter: Arc<RouteMeter>,
}

/// A request that arrives on an open connection after the daemon was told to stop is turned away;
/// only what the daemon says of itself is still served.
fn open(api: &Api, request: &Request) -> Result<(), ApiError> {
    let of_the_daemon = || service::PATHS.contains(&request.uri().path());
    if api.draining.is_cancelled() && !of_the_daemon() {
        return Err(ApiError::shutting_down());
    }
    Ok(())
}

/// The layer of a route with [`Scope::Read`].
pub(super) async fn read(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Guard { api, meter } = guard;
    if let Err(refused) = open(&api, &request) {
        return refused.into_response();
    }
    let allowed = match Caller::of(&request, &api.policy) {
        Ok(caller) => caller.require(Scope::Read, &api.policy).await,
        Err(error) => Err(error),
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    response.extensions_mut().insert(meter);
    response
}

/// The layer of a route with [`Scope::Operate`]: every call leaves a line in the audit log, also one
/// that was refused, and one whose caller didn't wait for its end.
pub(super) async fn operate(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    let Guard { api, meter } = guard;
    if let Err(refused) = open(&api, &request) {
        return refused.into_response();
    }
    let mut call = audit::Call::begin(&request);
    request.extensions_mut().insert(call.note());
    let (peer, caller) = (peer_of(&request), Caller::of(&request, &api.policy));
    let mut response = match admit(peer, caller, &api.policy, &mut call).await {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    call.answered(response.status());
    response.extensions_mut().insert(meter);
    response
}

/// Notes who it is, and whether they may.
async fn admit(
    peer: Result<Arc<Peer>, ApiError>,
    caller: Result<Caller, ApiError>,
    policy: &Policy,
    call: &mut audit::Call,
) -> Result<(), ApiError> {
    call.by(peer?.identity().await);
    let caller = caller?;
    if caller.token {
        call.with_token();
    }
    caller.require(Scope::Operate, policy).await?;
    call.allowed();
    Ok(())
}
