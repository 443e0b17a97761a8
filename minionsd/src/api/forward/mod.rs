//! `GET /vms/{vm}/forward`: one connection to a target in a guest, as a WebSocket or as plain bytes. [`listen`] has the
//! opposite direction.
//!
//! ```text
//!  client ── GET, Upgrade: websocket │ tcp ──▶ daemon ── forward_open ──▶ agent ── connect ──▶ target
//!         ◀── 101, or a problem ──            ◀────────── reply ──────────
//! ```
//!
//! * [`bytes`]: the client's side as plain bytes, with half-close by the transport.
//! * [`websocket`]: the client's side as channel messages.
//! * [`listen`]: listening sockets in a guest, and their connections. [`listener_relay`]: their messages.

mod bytes;
pub(super) mod listen;
mod listener_relay;
mod websocket;

use super::audit::AuditNote;
use super::extract::{CallerTimeout, QueryParams, TheVm};
use super::problem::{ApiError, ForwardProblems};
use super::state::ApiState;
use crate::agent::{AgentStream, Lane};
use crate::forward::{ForwardEnd, pump};
use crate::vm::Vm;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use minions_api::exec::MAX_TIMEOUT_MS;
use minions_api::{ErrorCode, VmName};
use minions_proto::Call;
use minions_proto::frame::MAX_FRAME_LEN;
use minions_proto::message::{Feature, ForwardOpen, MAX_FORWARD_TIMEOUT_MS};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Default deadline of the call: the agent's deadline for the target, plus the time for a connection to the agent.
const PATIENCE: Duration = Duration::from_secs(15);

/// Time for a connection to the agent, which the agent's own deadline does not include.
const OTHER_STEPS: Duration = Duration::from_secs(5);

/// Number of bytes that are read from a client at a time. Each WebSocket keeps a buffer of this length, and a client may
/// hold hundreds that send little.
const READ_BUFFER: usize = 16 * 1024;

/// Token of the `Upgrade` header for plain bytes.
const TCP: &str = "tcp";

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ForwardParams {
    /// Target in the guest: `tcp:HOST:PORT` or `unix:/PATH`. The agent connects to its own loopback
    /// addresses and Unix sockets, and to the targets in its option `--allow-forward`.
    #[param(example = "tcp:127.0.0.1:80")]
    target: String,
    /// Milliseconds after which the caller gets an `agent_timeout` instead of a connection.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Connect to a port or a Unix socket in a guest
///
/// The reply is sent when the target has accepted the connection; otherwise it is a problem. With
/// `Upgrade: tcp` the connection then carries plain bytes in both directions, and either side ends its
/// direction by half-closing it. As a WebSocket, all messages are binary: a channel byte (0 towards
/// the target, 1 from it, 3 control) and its payload; an empty payload on channel 0 or 1 is the end of
/// that direction. When the agent closes the forward, the last message is `{"type":"closed","reason":…}` on
/// channel 3.
#[utoipa::path(
    get, path = "/vms/{vm}/forward", operation_id = "open_forward", tag = "forward",
    params(("vm" = VmName, Path), ForwardParams),
    responses((status = 101, description = "Connected to the target"), ForwardProblems),
)]
pub(super) async fn open_forward(
    State(api): State<ApiState>,
    TheVm(vm): TheVm,
    QueryParams(params): QueryParams<ForwardParams>,
    note: AuditNote,
    request: Request,
) -> Result<Response, ApiError> {
    let ForwardParams { target, timeout_ms } = params;
    note.subject(&target).await?;
    let deadline = CallerTimeout::of(timeout_ms)?.deadline_or(PATIENCE);
    let upgrade = ClientUpgrade::of(request).await?;
    let call = ForwardOpen { target, timeout_ms: Some(targets_share(deadline)) };
    call.target().map_err(|invalid| ApiError::invalid(&invalid))?;
    let place = taken_place(&api)?;
    let opened = open(&vm, &note, (Feature::Forward, Lane::Forward), &call, deadline).await?;
    let (_, stream) = opened;
    Ok(upgrade.serve(ForwardSession { api, note, stream, _place: place }))
}

/// Takes a place among the WebSockets and forwards of all VMs.
fn taken_place(api: &ApiState) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(&api.execs.websockets).try_acquire_owned().map_err(|_| {
        let detail = "too many WebSockets and forwards are open; retry when another one is closed";
        ApiError::of(ErrorCode::Overloaded, detail)
    })
}

/// Opens a stream of a forward or a listener, if the agent has the feature.
async fn open<C: Call>(
    vm: &Vm,
    note: &AuditNote,
    (feature, lane): (Feature, Lane),
    call: &C,
    deadline: Instant,
) -> Result<(C::Reply, AgentStream), ApiError> {
    let opened = async {
        vm.client().require(feature, &[], deadline).await?;
        vm.client().open_forward(lane, call, deadline).await
    };
    opened.await.map_err(|error| {
        let error = ApiError::call(vm.name(), error);
        note.outcome(|| error.code().to_string());
        error
    })
}

/// Returns the agent's deadline for the target, in milliseconds: the time until `deadline`, minus the time for a
/// connection to the agent, but at least half of the time.
fn targets_share(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    let share = left.saturating_sub(OTHER_STEPS).max(left / 2);
    u64::try_from(share.as_millis()).unwrap_or(MAX_TIMEOUT_MS).clamp(1, MAX_FORWARD_TIMEOUT_MS)
}

/// The client's request to switch protocols.
enum ClientUpgrade {
    WebSocket(WebSocketUpgrade),
    Tcp(OnUpgrade),
}

impl ClientUpgrade {
    async fn of(request: Request) -> Result<Self, ApiError> {
        let (mut parts, _) = request.into_parts();
        if asks_for_tcp(&parts.headers)
            && let Some(upgrade) = parts.extensions.remove::<OnUpgrade>()
        {
            return Ok(Self::Tcp(upgrade));
        }
        let upgrade = websocket_upgrade(&mut parts, "`Upgrade: tcp` or a WebSocket").await;
        upgrade.map(Self::WebSocket)
    }

    /// Returns the request for a WebSocket; any other request is refused.
    async fn websocket(request: Request) -> Result<WebSocketUpgrade, ApiError> {
        websocket_upgrade(&mut request.into_parts().0, "a WebSocket").await
    }

    /// Returns the response, and serves the session after the client has received it.
    fn serve(self, session: ForwardSession) -> Response {
        match self {
            Self::WebSocket(upgrade) => {
                let counted = session.api.execs.tasks.token();
                let upgrade = upgrade.max_message_size(MAX_FRAME_LEN).max_frame_size(MAX_FRAME_LEN);
                upgrade.read_buffer_size(READ_BUFFER).on_upgrade(move |socket| async move {
                    let (mut reader, mut writer) = websocket::halves(socket);
                    let end = session.run(&mut reader, &mut writer).await;
                    writer.close(end.as_ref(), reader).await;
                    drop(counted);
                })
            }
            Self::Tcp(upgrade) => {
                let tasks = session.api.execs.tasks.clone();
                tasks.spawn(async move {
                    let Ok(upgraded) = upgrade.await else { return };
                    let (mut reader, mut writer) = bytes::halves(upgraded);
                    session.run(&mut reader, &mut writer).await;
                });
                let headers = [
                    (header::CONNECTION, HeaderValue::from_static("upgrade")),
                    (header::UPGRADE, HeaderValue::from_static(TCP)),
                ];
                (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
            }
        }
    }
}

async fn websocket_upgrade(
    parts: &mut Parts,
    required: &str,
) -> Result<WebSocketUpgrade, ApiError> {
    WebSocketUpgrade::from_request_parts(parts, &()).await.map_err(|rejection| {
        let why = rejection.body_text();
        let detail = format!("this path requires {required}: {why}");
        ApiError::malformed(Some("Upgrade".into()), detail)
    })
}

/// Reports whether the request asks to switch to plain bytes: in `Upgrade`, and also in `Connection`, as the standard
/// requires.
fn asks_for_tcp(headers: &HeaderMap) -> bool {
    let names = |header, token: &str| {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    };
    names(header::UPGRADE, TCP) && names(header::CONNECTION, "upgrade")
}

/// An open forward.
struct ForwardSession {
    api: ApiState,
    /// Access to the audit entries of the call. Dropping this value ends the call, so it is kept until the session
    /// ends.
    note: AuditNote,
    stream: AgentStream,
    _place: OwnedSemaphorePermit,
}

impl ForwardSession {
    /// Moves bytes until the forward ends; returns `None` if the daemon stops first.
    async fn run(
        self,
        reader: &mut impl crate::forward::ClientReader,
        writer: &mut impl crate::forward::ClientWriter,
    ) -> Option<ForwardEnd> {
        let draining = self.api.execs.draining.clone();
        let end = tokio::select! {
            end = pump(self.stream, reader, writer) => Some(end),
            () = draining.cancelled() => None,
        };
        self.note.outcome(|| end.as_ref().map_or("shutting_down", ForwardEnd::as_str).to_owned());
        end
    }
}
