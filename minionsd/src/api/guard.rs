//! The layers in front of every route, which admit or refuse callers.

use super::audit::{Begins, Call};
use super::auth::{Caller, Peer, Policy};
use super::problem::ApiError;
use super::service;
use super::state::ApiState;
use crate::metrics::RouteMeter;
use axum::extract::{Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use minions_api::service::Scope;
use std::sync::Arc;

/// State of a route's layer. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) api: ApiState,
    /// Meter of the route. It is attached to the response for the outermost layer, which measures the duration.
    pub(super) meter: Arc<RouteMeter>,
    /// Time of the first audit entry of the route's calls; unused for [`Scope::Read`].
    pub(super) begins: Begins,
    /// Names of the documented query parameters; `None` for pages, which accept any.
    pub(super) query: Option<Arc<[String]>>,
}

impl Guard {
    /// Refuses a query with an unknown parameter, because ignoring it could change the meaning of the request.
    fn check_query(&self, request: &Request) -> Result<(), ApiError> {
        let (Some(known), Some(_)) = (&self.query, request.uri().query()) else { return Ok(()) };
        let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
        // The handler refuses a query that cannot be parsed, and names the field.
        let Ok(Query(given)) = query else { return Ok(()) };
        match given.into_iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let detail = if known.is_empty() {
                    format!("{name:?} is not a query parameter of this route, which has none")
                } else {
                    let known = known.join(", ");
                    format!("{name:?} is not a query parameter of this route; allowed: {known}")
                };
                Err(ApiError::malformed(Some(name), detail))
            }
        }
    }
}

/// Refuses requests that arrive on an open connection after the daemon was told to stop, except those
/// about the daemon itself.
fn refuse_while_draining(api: &ApiState, request: &Request) -> Result<(), ApiError> {
    let about_the_daemon = service::PATHS.contains(&request.uri().path());
    if api.draining.is_cancelled() && !about_the_daemon {
        return Err(ApiError::shutting_down());
    }
    Ok(())
}

/// The layer of a route with [`Scope::Read`].
pub(super) async fn read(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let query = guard.check_query(&request);
    let Guard { api, meter, .. } = guard;
    if let Err(refused) = refuse_while_draining(&api, &request) {
        return refused.into_response();
    }
    let allowed = match Caller::of(&request, &api.policy) {
        Ok(caller) => caller.require(Scope::Read, &api.policy).await.and(query),
        Err(error) => Err(error),
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    response.extensions_mut().insert(meter);
    response
}

/// The layer of a route with [`Scope::Operate`].
///
/// Every call is audited. Refused calls of one caller share an entry. For an admitted call, the first entry is written
/// before a guest is contacted, and the last before the caller gets the reply, unless the reply is a stream.
pub(super) async fn operate(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    let query = guard.check_query(&request);
    let Guard { api, meter, begins, .. } = guard;
    if let Err(refused) = refuse_while_draining(&api, &request) {
        return refused.into_response();
    }
    let call = Call::of(&request, api.audit.clone(), begins);
    let peer = Caller::peer_of(&request);
    let caller = Caller::of(&request, &api.policy);
    let mut response = match admit(peer, caller, &api.policy, &call).await {
        Ok(()) => {
            request.extensions_mut().insert(call.note());
            let response = match query {
                Ok(()) => next.run(request).await,
                Err(error) => error.into_response(),
            };
            call.answered(response.status()).await;
            response
        }
        Err(error) => {
            let response = error.into_response();
            call.refused(response.status()).await;
            response
        }
    };
    response.extensions_mut().insert(meter);
    response
}

/// Identifies the caller, checks its scope, and writes the first audit entry.
async fn admit(
    peer: Result<Arc<Peer>, ApiError>,
    caller: Result<Caller, ApiError>,
    policy: &Policy,
    call: &Call,
) -> Result<(), ApiError> {
    // Before the token is checked, so that the entry of an invalid token has the uid too.
    call.identify(peer?.identity().await);
    let caller = caller?;
    if caller.has_token() {
        call.has_token();
    }
    caller.require(Scope::Operate, policy).await?;
    call.admitted().await
}
