//! `GET /vms/{vm}/files/watch`: changes in a directory as Server-Sent Events.

use super::super::audit::AuditNote;
use super::super::extract::{CallerTimeout, QueryParams, TheVm};
use super::super::problem::{ApiError, FileProblems};
use super::super::state::ApiState;
use super::super::streamed::streamed;
use super::call::{FileCall, FileParams};
use super::lines::GuestLines;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use minions_api::VmName;
use minions_api::event::SSE;
use minions_api::files::{FileEvent, FileEventKind};
use minions_proto::message::{FileOperation, WatchTree};
use serde::Deserialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::timeout;

/// Interval of the comments that show that the daemon is alive.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// First message of a stream. It confirms that the directory is watched, and sets the client's reconnection delay in
/// milliseconds.
const GREETING: &[u8] = b"retry: 1000\n\n";

/// First message for a client that was connected before: the changes since then are lost.
const OVERFLOW_ON_RETURN: &[u8] =
    b"retry: 1000\n\nevent: overflow\ndata: {\"event\":\"overflow\",\"path\":\"\",\"directory\":false}\n\n";

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct WatchParams {
    /// Absolute path of a directory, or of a file, in the guest.
    #[param(example = "/var/spool")]
    #[serde(default)]
    path: String,
    /// Path as base64, instead of `path`, if it is not UTF-8.
    path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number (default: root).
    user: Option<String>,
    /// Also watch all directories beneath this one.
    recursive: Option<bool>,
    /// Milliseconds after which the caller gets an `agent_timeout` if the watch could not be started.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Follow changes of files in a guest
///
/// Returns Server-Sent Events: `event:` is the type of the change, `data:` the change as JSON. `overflow`
/// means that changes were lost: list the directories again. It is also the first event for a client
/// that reconnects with `Last-Event-ID`. A comment every 10 s shows that the daemon is alive. The stream
/// ends when the directory or the guest is gone, and when the daemon stops.
#[utoipa::path(
    get, path = "/vms/{vm}/files/watch", operation_id = "watch_files", tag = "files",
    params(
        ("vm" = VmName, Path),
        WatchParams,
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that the client received"),
    ),
    responses(
        (status = 200, description = "Changes as they happen", body = FileEvent,
            content_type = "text/event-stream"),
        FileProblems,
    ),
)]
pub(in super::super) async fn watch_files(
    State(api): State<ApiState>,
    vm: TheVm,
    QueryParams(params): QueryParams<WatchParams>,
    note: AuditNote,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let WatchParams { path, path_base64, user, recursive, timeout_ms } = params;
    let patience = CallerTimeout::of(timeout_ms)?;
    let file = FileParams { path, path_base64, user };
    let (call, path) = FileCall::begin(api, vm, note, file, &patience).await?;
    let recursive = recursive.unwrap_or(false);
    let op = FileOperation::Watch(WatchTree { path, recursive });
    let mut stream = call.start(op).await?;
    call.first_header(&mut stream).await?;
    let greeting =
        if headers.contains_key("last-event-id") { OVERFLOW_ON_RETURN } else { GREETING };
    let watch =
        WatchStream { call, lines: GuestLines::new(stream), greeting: Some(greeting), id: 0 };
    let messages = futures_util::stream::unfold(watch, |mut watch| async move {
        watch.next().await.map(|message| (Ok::<_, Infallible>(message), watch))
    });
    Ok(streamed(SSE, Body::from_stream(messages)))
}

/// Event stream of one client.
struct WatchStream {
    call: FileCall,
    lines: GuestLines,
    greeting: Option<&'static [u8]>,
    /// Number of the last event.
    id: u64,
}

impl WatchStream {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(Bytes::from_static(greeting));
        }
        let read = tokio::select! {
            read = timeout(HEARTBEAT, self.lines.next::<FileEvent>()) => read,
            () = self.call.api.draining.cancelled() => return None,
        };
        match read {
            Ok(Ok(Some(event))) => {
                self.id += 1;
                Some(message(self.id, &event))
            }
            Ok(Ok(None)) => {
                self.call.succeeded();
                None
            }
            Ok(Err(error)) => {
                self.call.failed(error);
                None
            }
            Err(_) => Some(Bytes::from_static(b": alive\n\n")),
        }
    }
}

fn message(id: u64, change: &FileEvent) -> Bytes {
    // The JSON has no line breaks, and serializing this type cannot fail.
    let data = serde_json::to_string(&change).unwrap_or_default();
    format!("id: {id}\nevent: {}\ndata: {data}\n\n", event_name(change.event)).into()
}

/// Returns the name of an event, as in its JSON.
fn event_name(event: FileEventKind) -> &'static str {
    match event {
        FileEventKind::Created => "created",
        FileEventKind::Modified => "modified",
        FileEventKind::Removed => "removed",
        FileEventKind::Moved => "moved",
        FileEventKind::Overflow => "overflow",
        FileEventKind::Other => "other",
    }
}
