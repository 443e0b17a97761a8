//! `GET /events`: VM events as Server-Sent Events.
//!
//! Every message has an `id:` line. A client that reconnects sends the last id as `Last-Event-ID`; browsers do this
//! automatically.

use super::auth::{Caller, Peer};
use super::extract::Params;
use super::problem::{ApiError, ServiceProblems};
use super::state::ApiState;
use super::streamed::streamed;
use crate::events::{EventId, MAX_READERS, Read, Reader, ReaderKind};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use minions_api::event::{Event, RESET, SSE};
use minions_api::service::Scope;
use minions_api::{ErrorCode, VmName};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Interval of the comments that show that the daemon is alive. It also bounds how long a client that vanished
/// occupies a reader's place.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Request header with the id of the last event that the client received.
const LAST_EVENT_ID: &str = "last-event-id";

/// First message of a stream. It confirms the subscription, and sets the client's reconnection delay in milliseconds.
const GREETING: &[u8] = b"retry: 1000\n\n";

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Restricts the stream to events of this VM, which need not exist yet.
    #[param(value_type = Option<VmName>)]
    vm: Option<String>,
}

/// Follow changes of VMs
///
/// Returns Server-Sent Events: `event:` is the event's `type`, `data:` the event as JSON, `id:` the
/// position for resuming with `Last-Event-ID`. `event: reset` (with a `Reset`) marks missing
/// events; read `GET /vms` again after it. A comment every 10 s shows that the daemon is alive. The
/// stream ends only when the daemon stops.
#[utoipa::path(
    get, path = "/events", operation_id = "follow_events", tag = "vms",
    params(
        EventParams,
        ("Last-Event-ID" = Option<String>, Header, description = "Resume after this event"),
    ),
    responses(
        (status = 200, description = "Events as they happen", body = Event,
            content_type = "text/event-stream"),
        ServiceProblems,
    ),
)]
pub(super) async fn follow_events(
    State(api): State<ApiState>,
    Params(params): Params<EventParams>,
    request: Request,
) -> Result<Response, ApiError> {
    let vm = params.vm.map(parse_name).transpose()?;
    let last = last_event_id(request.headers())?;
    let caller = Caller::of(&request, &api.policy)?;
    let kind = if caller.scopes(&api.policy).await.contains(&Scope::Operate) {
        ReaderKind::Operator
    } else if request.extensions().get::<Arc<Peer>>().is_some_and(|peer| !peer.may_be_a_browser()) {
        ReaderKind::Unix
    } else {
        ReaderKind::Tcp
    };
    let reader = api.registry.events().reader(kind, last, vm).ok_or_else(|| {
        let clients = match kind {
            ReaderKind::Operator => "operators",
            ReaderKind::Unix => "clients of the Unix socket",
            ReaderKind::Tcp => "clients that may only read",
        };
        let detail = format!("{MAX_READERS} {clients} already follow events; retry later");
        ApiError::of(ErrorCode::Overloaded, detail)
    })?;
    let stream = Told { reader, draining: api.draining, greeted: false };
    let lines = futures_util::stream::unfold(stream, |mut stream| async move {
        stream.next().await.map(|line| (Ok::<_, Infallible>(line), stream))
    });
    Ok(streamed(SSE, Body::from_stream(lines)))
}

fn parse_name(name: String) -> Result<VmName, ApiError> {
    name.parse().map_err(|error| {
        ApiError::malformed(Some("vm".into()), format!("`vm` is {name:?}: {error}"))
    })
}

/// Parses `Last-Event-ID`. An empty value counts as absent: the standard uses it to reset the id.
fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, ApiError> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(None) };
    let id = id.to_str().ok().and_then(|id| id.parse().ok());
    id.map(Some).ok_or_else(|| {
        let detail = format!("`Last-Event-ID` is {}", crate::events::NotAnId);
        ApiError::malformed(Some("Last-Event-ID".into()), detail)
    })
}

/// Event stream of one client. The body takes the next message when the client has taken the previous one.
#[derive(Debug)]
struct Told {
    reader: Reader,
    draining: CancellationToken,
    greeted: bool,
}

impl Told {
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Bytes::from_static(GREETING));
        }
        let read = tokio::select! {
            read = timeout(HEARTBEAT, self.reader.next()) => read,
            () = self.draining.cancelled() => return None,
        };
        let id = self.reader.last();
        Some(match read {
            Ok(Read::Event(event)) => message(&id, event.kind.as_str(), &*event),
            Ok(Read::Reset(reset)) => message(&id, RESET, &reset),
            // With an id, so that a reconnecting client does not start again before events that its filter skipped.
            Err(_) => format!(": alive\nid: {id}\n\n").into(),
        })
    }
}

fn message<T: Serialize>(id: &impl Display, event: &str, data: &T) -> Bytes {
    // serde_json writes no line breaks, and cannot fail for these types.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("id: {id}\nevent: {event}\ndata: {data}\n\n").into()
}
