//! `GET /vms/{vm}/forward/listen`: a listening socket in a guest. `GET /vms/{vm}/forward/accept`: one of its
//! connections.
//!
//! ```text
//!  client ── GET …/listen, Upgrade: websocket ──▶ daemon ── forward_listen ──▶ agent ── bind
//!         ◀── `listening`, `connection` 1, … ──         ◀── `connection` 1 ───       ◀── a program connects
//!  client ── GET …/accept?connection=1 ─────────▶ daemon ── forward_accept ──▶ agent
//!         ◀════════════ bytes ═════════════════▶        ◀═══════════════════▶       ◀══▶ the program
//! ```

use super::listener_relay;
use super::{ClientUpgrade, ForwardSession, PATIENCE, open, taken_place};
use crate::agent::Lane;
use crate::api::audit::AuditNote;
use crate::api::extract::{CallerTimeout, QueryParams, TheVm};
use crate::api::problem::{ApiError, ForwardProblems, ListenProblems};
use crate::api::state::ApiState;
use axum::extract::{Request, State};
use axum::response::Response;
use minions_api::VmName;
use minions_proto::message::{Feature, ForwardAccept, ForwardListen};
use serde::Deserialize;

/// Longest message of a client, in bytes: a few words and a number.
const MAX_MESSAGE: usize = 4096;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ListenParams {
    /// Address in the guest: `tcp:ADDRESS:PORT`, `tcp:localhost:PORT` or `unix:/PATH`; port 0 chooses a
    /// free port. `private:NAME` is a Unix socket in a new directory that only its owner may enter. The
    /// agent listens on loopback addresses and Unix sockets, and on the addresses in its option
    /// `--allow-forward`.
    #[param(example = "tcp:localhost:8080")]
    address: String,
    /// `USER` or `USER:GROUP` that owns a Unix socket, and with whose rights it is created; by
    /// default, the agent's user.
    owner: Option<String>,
    /// Milliseconds after which the caller gets an `agent_timeout` instead of a listener.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct AcceptParams {
    /// Id of the listener, from its first message.
    listener: String,
    /// Number of a connection that waits.
    connection: u64,
    /// Milliseconds after which the caller gets an `agent_timeout` instead of the connection.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Listen on a port or a Unix socket in a guest
///
/// A WebSocket with one JSON object in each text message. The first one is
/// `{"type":"listening","listener":…,"address":…}`, with the chosen port. Each connection is reported
/// by `{"type":"connection","connection":1,"peer":…}`; take it within 30 s with
/// `GET /vms/{vm}/forward/accept`, or send `{"type":"refuse","connection":1}`. The listener ends with
/// this WebSocket, and its socket file is removed; connections that were taken continue.
#[utoipa::path(
    get, path = "/vms/{vm}/forward/listen", operation_id = "open_listener", tag = "forward",
    params(("vm" = VmName, Path), ListenParams),
    responses((status = 101, description = "The agent listens"), ListenProblems),
)]
pub(in crate::api) async fn open_listener(
    State(api): State<ApiState>,
    TheVm(vm): TheVm,
    QueryParams(params): QueryParams<ListenParams>,
    note: AuditNote,
    request: Request,
) -> Result<Response, ApiError> {
    let ListenParams { address, owner, timeout_ms } = params;
    note.subject(&address).await?;
    let deadline = CallerTimeout::of(timeout_ms)?.deadline_or(PATIENCE);
    let upgrade = ClientUpgrade::websocket(request).await?;
    let listen = ForwardListen { address, owner };
    listen.address().map_err(|invalid| ApiError::invalid(&invalid))?;
    let place = taken_place(&api)?;
    let opened =
        open(&vm, &note, (Feature::ForwardListen, Lane::Forward), &listen, deadline).await?;
    let (listening, stream) = opened;
    let counted = api.execs.tasks.token();
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.read_buffer_size(MAX_MESSAGE).on_upgrade(move |socket| async move {
        let draining = api.execs.draining.clone();
        listener_relay::run(listening, stream, socket, draining, &note).await;
        drop((place, counted));
    }))
}

/// Take a connection of a listener in a guest
///
/// The connection that a program in the guest has made to the listener. As `GET /vms/{vm}/forward`,
/// it is plain bytes after `Upgrade: tcp`, or a WebSocket with channel messages. If the client of a
/// WebSocket leaves before both directions have ended, the agent resets the connection.
#[utoipa::path(
    get, path = "/vms/{vm}/forward/accept", operation_id = "accept_connection", tag = "forward",
    params(("vm" = VmName, Path), AcceptParams),
    responses((status = 101, description = "The connection is taken"), ForwardProblems),
)]
pub(in crate::api) async fn accept_connection(
    State(api): State<ApiState>,
    TheVm(vm): TheVm,
    QueryParams(params): QueryParams<AcceptParams>,
    note: AuditNote,
    request: Request,
) -> Result<Response, ApiError> {
    let AcceptParams { listener, connection, timeout_ms } = params;
    note.subject(&format!("{listener}/{connection}")).await?;
    let deadline = CallerTimeout::of(timeout_ms)?.deadline_or(PATIENCE);
    let upgrade = ClientUpgrade::of(request).await?;
    let listener = listener.parse().map_err(|invalid| ApiError::invalid(&invalid))?;
    let accept = ForwardAccept { listener, connection };
    let place = taken_place(&api)?;
    let opened =
        open(&vm, &note, (Feature::ForwardListen, Lane::Accepted), &accept, deadline).await?;
    let (_, stream) = opened;
    Ok(upgrade.serve(ForwardSession { api, note, stream, _place: place }))
}
