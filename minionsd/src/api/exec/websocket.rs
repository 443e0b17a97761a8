//! `GET /vms/{vm}/exec`: a program over a WebSocket.
//!
//! ```text
//!  client ── text: a request, or what to attach to ──▶ daemon
//!         ◀── text: attached │ a problem, and Close ──
//!         ◀═══ binary: channel byte + payload, both ways ═══▶   see `pump`
//! ```

use super::super::audit::Note;
use super::super::extract::{CallParams, Patience, TheVm, from_json};
use super::super::problem::{ApiError, ExecProblems};
use super::super::request_id::RequestId;
use super::super::state::ApiState;
use super::super::websocket_close::{FAREWELL, close, is_too_long};
use super::request::{self, ExecForm};
use super::{convert, execs, pump};
use crate::exec::{ExecDeadlines, ExecDriver, ExecError, ExecTarget, RunningExec};
use crate::vm::Vm;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseCode, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use minions_api::exec::{AttachRequest, ExecRequest};
use minions_api::{ErrorCode, VmName};
use minions_proto::frame::MAX_FRAME_LEN;
use minions_proto::json;
use minions_proto::message::{ExecAttach, Role};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Maximum length of a client's message. One byte more than a frame, so that a message that is slightly too long is
/// refused with the daemon's own close reason.
const MAX_MESSAGE: usize = MAX_FRAME_LEN + 1;

/// Number of bytes that are read from a client at a time.
const READ_BUFFER: usize = 32 * 1024;

/// Deadline for the client's first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Run a program, or attach to one, over a WebSocket
///
/// The first message is text: an `ExecRequest`, or `{"attach":"ID"}`. The answer is text: the exec
/// that the WebSocket is attached to, or a `Problem` followed by a close. All further messages are
/// binary: a channel byte (0 stdin, 1 stdout, 2 stderr, 3 control) and its payload.
#[utoipa::path(
    get, path = "/vms/{vm}/exec", operation_id = "open_exec", tag = "exec",
    params(("vm" = VmName, Path), CallParams),
    responses((status = 101, description = "Switching protocols to WebSocket"), ExecProblems),
)]
pub(in super::super) async fn open_exec(
    State(api): State<ApiState>,
    TheVm(vm): TheVm,
    patience: Patience,
    note: Note,
    request_id: RequestId,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| {
        let why = rejection.body_text();
        let detail = format!("GET on this path requires a WebSocket; otherwise use POST: {why}");
        ApiError::malformed(Some("Upgrade".into()), detail)
    })?;
    let places = std::sync::Arc::clone(&api.execs.websockets);
    let place = places.try_acquire_owned().map_err(|_| {
        ApiError::of(
            ErrorCode::Overloaded,
            "too many WebSockets are open; retry when another one is closed",
        )
    })?;
    // From now on the daemon waits for this WebSocket when it stops.
    let counted = api.execs.tasks.token();
    let session = ExecSession { api, vm, patience, note, request_id };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.read_buffer_size(READ_BUFFER).on_upgrade(move |socket| async move {
        session.run(socket).await;
        drop((place, counted));
    }))
}

/// Session of one WebSocket.
struct ExecSession {
    api: ApiState,
    vm: Vm,
    patience: Patience,
    /// Access to the call's audit entries. Held until the end of the session, because the call ends when it is dropped.
    note: Note,
    request_id: RequestId,
}

/// First message of a client.
enum FirstMessage {
    Start(Box<ExecRequest>),
    Attach(AttachRequest),
}

/// Failure to open a program.
enum OpenFailure {
    /// The request is refused; the client gets the problem.
    Refused(ApiError),
    /// The client has disconnected.
    Gone,
}

impl From<ApiError> for OpenFailure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl ExecSession {
    async fn run(self, mut socket: WebSocket) {
        let draining = self.api.execs.draining.clone();
        let opened = tokio::select! {
            opened = self.open(&mut socket) => opened,
            () = draining.cancelled() => {
                return close(socket, close_code::RESTART, "shutting_down").await;
            }
        };
        let running = match opened {
            Ok(running) => running,
            Err(OpenFailure::Refused(error)) => return self.refuse(socket, error).await,
            Err(OpenFailure::Gone) => return,
        };
        if !tell(&mut socket, &convert::attached(running.attached())).await {
            return;
        }
        match running {
            RunningExec::Object(driver) => {
                let pumped = pump::pump(socket, *driver, &self.note, &draining);
                self.vm.turns().take(pumped).await;
            }
            RunningExec::Plain(plain) => pump::tell(socket, plain, &self.note, &draining).await,
        }
    }

    async fn open(&self, socket: &mut WebSocket) -> Result<RunningExec, OpenFailure> {
        let first = timeout(FIRST_MESSAGE, first_message(socket)).await.unwrap_or_else(|_| {
            let detail = "no message within 10 s; the first message must be the request";
            Err(ApiError::malformed(None, detail).into())
        })?;
        let deadlines = ExecDeadlines { end: None, ..ExecDeadlines::within(self.patience.asked()) };
        let opened = match first {
            FirstMessage::Start(request) => {
                self.note.program(&request.command, &request.args).await?;
                let plan = request::plan(*request, ExecForm::WebSocket)?;
                self.note.exec(plan.id.as_str());
                RunningExec::open(&self.api.execs, &self.vm, &plan, deadlines).await
            }
            FirstMessage::Attach(AttachRequest { attach, stdout_offset, stderr_offset }) => {
                let id = attach.parse().map_err(|invalid| ApiError::value(&invalid))?;
                self.note.attachment(&attach).await?;
                let (stdout, stderr, role) = (stdout_offset, stderr_offset, Role::Control);
                self.attach(&ExecAttach { id, stdout, stderr, role }, deadlines.start).await
            }
        };
        opened.map_err(|error| ApiError::exec(self.vm.name(), error).into())
    }

    async fn attach(
        &self,
        attach: &ExecAttach,
        deadline: Instant,
    ) -> Result<RunningExec, ExecError> {
        let target = ExecTarget::find(&self.vm, deadline).await?;
        let driver = ExecDriver::attach(&self.api.execs, &target, attach, deadline).await;
        driver.map(|driver| RunningExec::Object(Box::new(driver))).map_err(execs::in_our_words)
    }

    async fn refuse(&self, mut socket: WebSocket, error: ApiError) {
        let code = error.code();
        self.note.outcome(|| code.to_string());
        let problem = error.about(self.vm.name().clone()).into_problem(self.request_id.as_str());
        let close_code: CloseCode =
            if problem.status < 500 { close_code::POLICY } else { close_code::ERROR };
        if tell(&mut socket, &problem).await {
            close(socket, close_code, code.as_str()).await;
        }
    }
}

/// Receives and parses the client's first message.
///
/// Cancel safe: a message is taken as a whole or not at all.
async fn first_message(socket: &mut WebSocket) -> Result<FirstMessage, OpenFailure> {
    loop {
        let text = match socket.recv().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_))) => {
                let detail = "the first message must be text: the request, as JSON";
                return Err(ApiError::malformed(None, detail).into());
            }
            Some(Err(error)) if is_too_long(&error) => {
                let detail =
                    "the request is longer than 1 MiB; pass large data as input or in a file";
                return Err(ApiError::of(ErrorCode::ArgumentListTooLong, detail).into());
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(OpenFailure::Gone),
        };
        return Ok(parse(text.as_bytes())?);
    }
}

fn parse(text: &[u8]) -> Result<FirstMessage, ApiError> {
    #[derive(Deserialize)]
    struct Keys {
        attach: Option<IgnoredAny>,
    }
    // Text that is not JSON is reported as an invalid request for a program.
    match json::from_slice(text) {
        Ok(Keys { attach: Some(_) }) => from_json(text).map(FirstMessage::Attach),
        _ => from_json(text).map(|request| FirstMessage::Start(Box::new(request))),
    }
}

/// Sends a text message; reports whether it was sent in time.
async fn tell<T: serde::Serialize>(socket: &mut WebSocket, what: &T) -> bool {
    let text = serde_json::to_string(what).unwrap_or_default();
    matches!(timeout(FAREWELL, socket.send(Message::text(text))).await, Ok(Ok(())))
}
