//! `GET /vms/{vm}/files/session`: a file session over a WebSocket.
//!
//! ```text
//!  client ── GET, Upgrade: websocket ──▶ daemon ── file_start, op session ──▶ agent
//!         ◀── 101, or a problem ──
//!         ═══ binary: the content of one frame, both ways ═══   see `session_pump`
//! ```

use super::super::audit::AuditNote;
use super::super::extract::{CallerTimeout, QueryParams, TheVm};
use super::super::problem::{ApiError, FileProblems};
use super::super::state::ApiState;
use super::super::websocket_close::{FAREWELL, close_halves};
use super::call::FileCall;
use super::session_pump::{SessionEnd, pump};
use crate::files::FileStream;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use minions_api::{ErrorCode, VmName};
use minions_proto::file_session::MAX_CONTENT_LEN;
use minions_proto::message::{FileOperation, ServeSession};
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// Number of bytes that are read from a client at a time.
const READ_BUFFER: usize = 32 * 1024;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct SessionParams {
    /// User of the guest whose rights apply, by name or number (default: root).
    user: Option<String>,
    /// Milliseconds after which the caller gets an `agent_timeout` if the session could not be started.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Open a file session in a guest
///
/// A WebSocket that carries many requests on files, in the order of their answers, with the rights of one
/// user. All messages are binary: the length of the head (4 bytes, big-endian), the head (JSON), and data.
/// An empty message every 5 s shows that the daemon is alive. Relative paths start in the user's home
/// directory. The session ends, and all its files are closed, when the WebSocket is closed. PROTOCOL.md
/// describes the requests and answers.
#[utoipa::path(
    get, path = "/vms/{vm}/files/session", operation_id = "open_file_session", tag = "files",
    params(("vm" = VmName, Path), SessionParams),
    responses((status = 101, description = "Switching protocols to WebSocket"), FileProblems),
)]
pub(in super::super) async fn open_file_session(
    State(api): State<ApiState>,
    vm: TheVm,
    QueryParams(params): QueryParams<SessionParams>,
    note: AuditNote,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let SessionParams { user, timeout_ms } = params;
    let patience = CallerTimeout::of(timeout_ms)?;
    let call = FileCall::begin_session(api, vm, note, user, &patience).await?;
    let upgrade = upgrade.map_err(|rejection| {
        let why = rejection.body_text();
        let detail = format!("GET on this path requires a WebSocket: {why}");
        ApiError::malformed(Some("Upgrade".into()), detail)
    })?;
    let place = Arc::clone(&call.api.execs.websockets).try_acquire_owned().map_err(|_| {
        let detail = "too many WebSockets and forwards are open; retry when another one is closed";
        ApiError::of(ErrorCode::Overloaded, detail)
    })?;
    let stream = call.start(FileOperation::Session(ServeSession {})).await?;
    // From now on the daemon waits for this WebSocket when it stops.
    let counted = call.api.execs.tasks.token();
    let session = OpenSession { call, stream, _place: place };
    let upgrade = upgrade.max_message_size(MAX_CONTENT_LEN).max_frame_size(MAX_CONTENT_LEN);
    Ok(upgrade.read_buffer_size(READ_BUFFER).on_upgrade(move |socket| async move {
        session.run(socket).await;
        drop(counted);
    }))
}

/// An open session.
struct OpenSession {
    call: FileCall,
    stream: FileStream,
    _place: OwnedSemaphorePermit,
}

impl OpenSession {
    /// Moves messages until the session ends. The operation in the guest ends when the stream is dropped.
    async fn run(self, socket: WebSocket) {
        let Self { call, mut stream, _place } = self;
        let draining = call.api.draining.clone();
        let (mut to_client, mut from_client) = socket.split();
        let end = tokio::select! {
            end = pump(&mut stream, &mut from_client, &mut to_client) => end,
            () = draining.cancelled() => SessionEnd::Restart,
        };
        drop(stream);
        let (code, reason) = end.close_frame();
        match end {
            SessionEnd::ClientGone => {
                call.succeeded();
                // Sends the answer to the client's Close.
                let _ = timeout(FAREWELL, to_client.close()).await;
                return;
            }
            SessionEnd::Failed(error) => drop(call.failed(error)),
            SessionEnd::Malformed(error) => {
                tracing::warn!(%error, "an agent violated the protocol of a file session");
                call.note.outcome(|| "agent_protocol_error".to_owned());
            }
            end => call.note.outcome(|| end.as_str().to_owned()),
        }
        close_halves(to_client, from_client, code, reason).await;
    }
}
