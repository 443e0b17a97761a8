//! `GET /vms/{vm}/exec`: a program over a WebSocket.
//!
//! ```text
//!  client ── text: a request, or what to attach to ──▶ daemon
//!         ◀── text: attached │ a problem, and Close ──
//!         ◀═══ binary: channel byte + payload, both ways ═══▶   see `pump`
//! ```

use super::super::Api;
use super::super::audit::Note;
use super::super::extract::{CallParams, Patience, TheVm, from_json};
use super::super::problem::{ApiError, ExecProblems};
use super::super::request_id::RequestId;
use super::plan::{Form, Plan};
use super::{AFTER_LIMIT, ENDLESS, START, execs, output, pump, show};
use crate::agent::{CallError, Programs};
use crate::exec::Place;
use crate::exec::opening::{self, Opened};
use crate::exec::plain::Plain;
use crate::vm::Vm;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseCode, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use minions_api::exec::{AttachRequest, Attached, ExecRequest};
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
    State(api): State<Api>,
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
    let session = Session { api, vm, patience, note, request_id };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.read_buffer_size(READ_BUFFER).on_upgrade(move |socket| async move {
        session.run(socket).await;
        drop((place, counted));
    }))
}

/// Session of one WebSocket.
struct Session {
    api: Api,
    vm: Vm,
    patience: Patience,
    /// Access to the call's audit entries. Held until the end of the session, because the call ends when it is dropped.
    note: Note,
    request_id: RequestId,
}

/// First message of a client.
enum First {
    Start(Box<ExecRequest>),
    Attach(AttachRequest),
}

/// Failure to open a program.
enum Unopened {
    /// The request is refused; the client gets the problem.
    Refused(ApiError),
    /// The client has disconnected.
    Gone,
}

impl From<ApiError> for Unopened {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// A program that was opened.
enum Program {
    Object(Box<Opened>),
    Plain(Box<Plain>, String),
}

impl Session {
    async fn run(self, mut socket: WebSocket) {
        let draining = self.api.execs.draining.clone();
        let opened = tokio::select! {
            opened = self.open(&mut socket) => opened,
            () = draining.cancelled() => {
                return pump::close(socket, close_code::RESTART, "shutting_down").await;
            }
        };
        match opened {
            Ok(Program::Object(opened)) => {
                if tell(&mut socket, &show::attached(&opened.0)).await {
                    let pumped = pump::pump(socket, *opened, &self.note, &draining);
                    self.vm.turns().take(pumped).await;
                }
            }
            Ok(Program::Plain(plain, id)) => {
                if tell(&mut socket, &attached_to_plain(id)).await {
                    pump::tell(socket, *plain, &self.note, &draining).await;
                }
            }
            Err(Unopened::Refused(error)) => self.refuse(socket, error).await,
            Err(Unopened::Gone) => {}
        }
    }

    async fn open(&self, socket: &mut WebSocket) -> Result<Program, Unopened> {
        let first = timeout(FIRST_MESSAGE, first_message(socket)).await.unwrap_or_else(|_| {
            let detail = "no message within 10 s; the first message must be the request";
            Err(ApiError::malformed(None, detail).into())
        })?;
        let deadline = self.patience.deadline_or(START);
        let (plan, id) = match first {
            First::Start(request) => {
                self.note.program(&request.command, &request.args).await?;
                let plan = Plan::of(*request, Form::WebSocket)?;
                let id = plan.id().to_owned();
                (Ok(plan), id)
            }
            First::Attach(attach) => {
                let id = attach.attach.parse().map_err(|invalid| ApiError::value(&invalid))?;
                let AttachRequest { attach, stdout_offset, stderr_offset } = attach;
                self.note.attachment(&attach).await?;
                let exec_attach = ExecAttach {
                    id,
                    stdout: stdout_offset,
                    stderr: stderr_offset,
                    role: Role::Control,
                };
                (Err(exec_attach), attach)
            }
        };
        self.note.exec(&id);
        let opened = match plan {
            Ok(plan) => self.start(&plan, deadline).await,
            Err(attach) => self.attach(&attach, deadline).await,
        };
        opened.map_err(|error| ApiError::exec(self.vm.name(), error).into())
    }

    async fn start(&self, plan: &Plan, deadline: Instant) -> Result<Program, CallError> {
        match self.vm.client().programs(deadline).await? {
            Programs::Objects(instance) => {
                let place = Place { vm: self.vm.clone(), instance };
                let opened = opening::start(&place, &plan.start, deadline).await?;
                Ok(Program::Object(Box::new(opened)))
            }
            Programs::Plain { limits } => {
                let exec = plan.plain(limits)?;
                let until = Instant::now() + plan.longest().unwrap_or(ENDLESS) + AFTER_LIMIT;
                let plain = Plain::start(self.vm.clone(), exec, until).await?;
                Ok(Program::Plain(Box::new(plain), plan.id().to_owned()))
            }
        }
    }

    async fn attach(&self, attach: &ExecAttach, deadline: Instant) -> Result<Program, CallError> {
        let instance = execs::instance(&self.vm, deadline).await?;
        let place = Place { vm: self.vm.clone(), instance };
        let opened = opening::attach(&place, attach, deadline).await;
        opened.map(|opened| Program::Object(Box::new(opened))).map_err(output::in_our_words)
    }

    async fn refuse(&self, mut socket: WebSocket, error: ApiError) {
        let code = error.code();
        self.note.outcome(|| code.to_string());
        let problem = error.about(self.vm.name().clone()).into_problem(self.request_id.as_str());
        let close: CloseCode =
            if problem.status < 500 { close_code::POLICY } else { close_code::ERROR };
        if tell(&mut socket, &problem).await {
            pump::close(socket, close, code.as_str()).await;
        }
    }
}

/// Receives and parses the client's first message.
///
/// Cancel safe: a message is taken as a whole or not at all.
async fn first_message(socket: &mut WebSocket) -> Result<First, Unopened> {
    loop {
        let text = match socket.recv().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_))) => {
                let detail = "the first message must be text: the request, as JSON";
                return Err(ApiError::malformed(None, detail).into());
            }
            Some(Err(error)) if pump::is_too_long(&error) => {
                let detail =
                    "the request is longer than 1 MiB; pass large data as input or in a file";
                return Err(ApiError::of(ErrorCode::ArgumentListTooLong, detail).into());
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Unopened::Gone),
        };
        return Ok(parse(text.as_bytes())?);
    }
}

fn parse(text: &[u8]) -> Result<First, ApiError> {
    #[derive(Deserialize)]
    struct Keys {
        attach: Option<IgnoredAny>,
    }
    // Text that is not JSON is reported as an invalid request for a program.
    match json::from_slice(text) {
        Ok(Keys { attach: Some(_) }) => from_json(text).map(First::Attach),
        _ => from_json(text).map(|request| First::Start(Box::new(request))),
    }
}

/// Sends a text message; reports whether it was sent in time.
async fn tell<T: serde::Serialize>(socket: &mut WebSocket, what: &T) -> bool {
    let text = serde_json::to_string(what).unwrap_or_default();
    matches!(timeout(pump::FAREWELL, socket.send(Message::text(text))).await, Ok(Ok(())))
}

/// Returns the `attached` message for a program of a plain agent: it has no input, and its output starts at 0.
fn attached_to_plain(id: String) -> Attached {
    Attached {
        status: "ok".into(),
        id,
        created: true,
        pid: 0,
        stdout: 0,
        stderr: 0,
        stdin: 0,
        stdin_acked: 0,
        stdin_window: 0,
        stdin_closed: true,
    }
}
