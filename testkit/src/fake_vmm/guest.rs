//! Fake guest that implements the wire protocol, including exec objects. It runs no programs: it records each
//! request to run one in a [`Ledger`] and returns synthetic output. It misbehaves as a [`Manner`] specifies. One
//! process can serve hundreds of such guests.
//!
//! A *life* is one run of the guest's agent, identified by a number. An *order* is the first argument of a program,
//! by which the ledger identifies the request.
//!
//! Tests can tell all answers apart. The output of a program contains the guest's name, its life and the order.
//! In health and status replies, `uptime_secs` is a number that no earlier answer of a guest with this name had.

mod manner;

pub use manner::Manner;

use super::behaviour::{request, until_end};
use super::ledger::Ledger;
use bytes::{Bytes, BytesMut};
use minions_proto::AgentError;
use minions_proto::channel::{AgentControl, Channel, ChannelMessage, Ended};
use minions_proto::error::ErrorCode;
use minions_proto::frame::Decoder;
use minions_proto::message::{
    Done, ExecAttached, ExecId, Feature, Outcome, Request, Usage, encode_error, encode_reply,
};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::sleep;

/// Maximum number of exec ids that are remembered, the newest ones. A request with a remembered id attaches instead of
/// running the program again.
const REMEMBERED: usize = 1024;

/// Input window that the guest announces, in bytes. The guest reads no input.
const WINDOW: u64 = 64 * 1024;

/// Handle of one guest. Clones refer to the same guest.
#[derive(Debug, Clone)]
pub struct Guest {
    shared: Arc<GuestShared>,
}

#[derive(Debug)]
struct GuestShared {
    name: String,
    dialect: Dialect,
    ledger: Arc<Ledger>,
    /// Number of answers so far, including those of earlier guests with this name.
    answers: Arc<AtomicU64>,
    /// False while the guest is paused.
    running: watch::Sender<bool>,
    state: Mutex<GuestState>,
}

/// Extent of the protocol that a guest's agent implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Base protocol only.
    Base,
    /// Base protocol and exec objects.
    Objects,
}

/// Counts of connections on which a guest violated the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BreachCounts {
    /// Number of all such connections.
    pub made: u32,
    /// Number of such connections that the host closed without a further request.
    pub closed: u32,
}

#[derive(Debug)]
struct GuestState {
    manner: Manner,
    breaches: BreachCounts,
    life: u64,
    /// The life in which the guest booted last.
    boot: u64,
    /// Reply to a request for a sample; `None` for an agent without the feature.
    sample: Option<SampleReply>,
    /// False while no agent listens.
    listens: bool,
    /// Requests to power off or to reboot.
    power_requests: u32,
    /// Remembered programs.
    programs: HashMap<ExecId, ProgramState>,
    oldest_first: VecDeque<ExecId>,
}

/// Reply of a guest's agent to a request for a sample.
#[derive(Debug, Clone)]
pub enum SampleReply {
    /// Sample with arbitrary figures.
    Figures(Value),
    /// Silence, whereas other requests are answered.
    Never,
}

/// Program that was started.
#[derive(Debug, Clone)]
enum ProgramState {
    /// Ended program, with its output.
    Ended(String),
    /// Program of an agent that was killed.
    Lost,
}

/// Answer to a request: the reply's frame, and the messages that follow it in channel mode, if any.
struct GuestAnswer {
    reply: Vec<u8>,
    stream: Option<Vec<u8>>,
}

impl Guest {
    /// Creates a guest whose agent has the life number `life`.
    #[must_use]
    pub fn new(name: &str, dialect: Dialect, life: u64, ledger: Arc<Ledger>) -> Self {
        Self::with(name, dialect, life, ledger, Arc::default())
    }

    fn with(
        name: &str,
        dialect: Dialect,
        life: u64,
        ledger: Arc<Ledger>,
        answers: Arc<AtomicU64>,
    ) -> Self {
        let state = GuestState {
            manner: Manner::Well,
            breaches: BreachCounts::default(),
            life,
            boot: life,
            sample: None,
            listens: true,
            power_requests: 0,
            programs: HashMap::new(),
            oldest_first: VecDeque::new(),
        };
        let (name, state, running) = (name.to_owned(), Mutex::new(state), watch::Sender::new(true));
        Self { shared: Arc::new(GuestShared { name, dialect, ledger, answers, running, state }) }
    }

    /// Creates another guest with the same name, which continues this guest's count of answers.
    #[must_use]
    pub fn successor(&self, life: u64) -> Self {
        let GuestShared { name, dialect, ledger, answers, .. } = &*self.shared;
        Self::with(name, *dialect, life, Arc::clone(ledger), Arc::clone(answers))
    }

    /// Changes the manner in which the guest answers, from the next request on.
    pub fn behave(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// Pauses the guest, as a VMM does by stopping its processors: until [`resume`](Self::resume), handshakes and
    /// requests get no answer. They are answered after it.
    pub fn pause(&self) {
        self.shared.running.send_replace(false);
    }

    /// Resumes the guest after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.shared.running.send_replace(true);
    }

    /// Waits until the guest is not paused.
    pub(super) async fn runs(&self) {
        // Cannot fail, because `self` holds the sender.
        let _ = self.shared.running.subscribe().wait_for(|running| *running).await;
    }

    /// Restarts the guest's agent with the life number `life`. If `reboots`, the guest also has a new boot id.
    ///
    /// Earlier requests are never answered. An earlier connection stays silent until the host sends bytes on it, and
    /// then ends: the kernel of a restarted guest answers unknown connections with a reset.
    pub fn restart(&self, life: u64, reboots: bool) {
        let mut state = self.state();
        state.life = life;
        if reboots {
            state.boot = life;
        }
        state.programs.clear();
        state.oldest_first.clear();
    }

    /// Sets what the agent replies to a request for a sample, and makes it announce the feature.
    pub fn reply_to_sample(&self, reply: SampleReply) {
        self.state().sample = Some(reply);
    }

    /// Sets whether an agent listens. Without one, new connections are closed, as the guest's kernel does.
    pub fn set_listening(&self, listens: bool) {
        self.state().listens = listens;
    }

    /// Reports whether an agent listens.
    pub(super) fn is_listening(&self) -> bool {
        self.state().listens
    }

    /// Kills the agent for lack of memory, as the guest's kernel does, and starts another one: all programs of the
    /// former agent are lost, and never run again.
    pub fn loses_its_agent(&self, life: u64) {
        let mut state = self.state();
        state.life = life;
        state.programs.values_mut().for_each(|program| *program = ProgramState::Lost);
    }

    /// Returns the number of answers so far. Later answers carry higher numbers.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::SeqCst)
    }

    /// Returns the number of requests to power off or to reboot so far.
    #[must_use]
    pub fn power_requests(&self) -> u32 {
        self.state().power_requests
    }

    /// Returns the counts of connections on which the guest violated the protocol.
    #[must_use]
    pub fn breaches(&self) -> BreachCounts {
        self.state().breaches
    }

    /// Locks the state. The guard is never held across an await.
    fn state(&self) -> MutexGuard<'_, GuestState> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection after its handshake.
    pub(super) async fn serve(&self, stream: &mut UnixStream) -> std::io::Result<()> {
        let connected_to = self.state().life;
        let mut decoder = Decoder::new();
        while let Some(payload) = request(stream, &mut decoder).await? {
            self.runs().await;
            if self.state().life != connected_to {
                return Ok(());
            }
            let manner = self.state().manner;
            if let Manner::Slow(pause) = manner {
                sleep(pause).await;
            }
            if matches!(manner, Manner::Mute) || self.state().life != connected_to {
                return self.until_reset(connected_to, stream).await;
            }
            if self.hides_sample(&payload) {
                return self.until_reset(connected_to, stream).await;
            }
            let GuestAnswer { reply, stream: then } = self.answer(&payload);
            if manner == Manner::Hangs {
                return self.until_reset(connected_to, stream).await;
            }
            if !manner.say(stream, &reply).await? {
                return Ok(());
            }
            if manner.is_breach() {
                return self.breached(stream).await;
            }
            if let Some(then) = then {
                stream.write_all(&then).await?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reports whether a request is never answered.
    fn hides_sample(&self, payload: &[u8]) -> bool {
        matches!(self.state().sample, Some(SampleReply::Never))
            && matches!(Request::decode(payload), Ok(Request::ReportSample(_)))
    }

    /// Keeps a connection silent. Returns when the client closes it, or sends bytes after a restart of the guest.
    async fn until_reset(&self, connected_to: u64, stream: &mut UnixStream) -> std::io::Result<()> {
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {
            if self.state().life != connected_to {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends no further bytes, and records whether the host sends another request or closes the connection.
    async fn breached(&self, stream: &mut UnixStream) -> std::io::Result<()> {
        self.state().breaches.made += 1;
        // An error also counts as a close: the kernel resets a connection that is closed with unread bytes.
        if stream.read(&mut [0]).await.unwrap_or(0) == 0 {
            self.state().breaches.closed += 1;
            return Ok(());
        }
        until_end(stream).await
    }

    fn answer(&self, payload: &[u8]) -> GuestAnswer {
        let answer = match Request::decode(payload) {
            Ok(Request::HealthCheck(_)) => encode_reply(&self.health()),
            Ok(Request::ReportStatus(_)) => encode_reply(&self.status()),
            Ok(Request::Exec(exec)) => {
                let life = self.state().life;
                let output = self.run(life, exec.args.first());
                encode_reply(&json!({ "exit_code": 0, "stdout": output, "stderr": "" }))
            }
            Ok(Request::ExecStart(start)) if self.shared.dialect == Dialect::Objects => {
                return self.start(start.id, start.args.first());
            }
            Ok(Request::ExecAttach(attach)) => match self.remembered(&attach.id) {
                Some(program) => return attached(attach.id, false, &program, attach.stdout),
                None => encode_error(&AgentError::new(ErrorCode::ExecGone, "no such exec")),
            },
            Ok(Request::ReportSample(_)) if self.sample().is_some() => encode_reply(&self.sample()),
            // Accepted without effect: the test continues.
            Ok(Request::Power(_)) if self.shared.dialect == Dialect::Objects => {
                self.state().power_requests += 1;
                encode_reply(&Done { message: "the guest will end".into() })
            }
            Ok(_) => encode_error(&AgentError::new(ErrorCode::Unsupported, "unsupported request")),
            Err(error) => encode_error(&error.into()),
        };
        // Encoding cannot fail, because each reply is plain JSON and fits a frame.
        GuestAnswer { reply: answer.unwrap_or_default(), stream: None }
    }

    fn start(&self, id: Option<ExecId>, order: Option<&String>) -> GuestAnswer {
        let Some(id) = id else {
            let refusal = AgentError::new(ErrorCode::BadRequest, "`id` is required");
            return GuestAnswer { reply: encode_error(&refusal).unwrap_or_default(), stream: None };
        };
        // One lock covers lookup and insertion, so that a second request with the same id waits for the first.
        let mut state = self.state();
        if let Some(program) = state.programs.get(&id) {
            return attached(id, false, program, None);
        }
        let program = ProgramState::Ended(self.run(state.life, order));
        state.programs.insert(id.clone(), program.clone());
        state.oldest_first.push_back(id.clone());
        if state.oldest_first.len() > REMEMBERED
            && let Some(oldest) = state.oldest_first.pop_front()
        {
            state.programs.remove(&oldest);
        }
        attached(id, true, &program, None)
    }

    fn remembered(&self, id: &ExecId) -> Option<ProgramState> {
        self.state().programs.get(id).cloned()
    }

    /// Records a run in the ledger, and returns the program's synthetic output.
    fn run(&self, life: u64, order: Option<&String>) -> String {
        let order = order.map_or("", String::as_str);
        self.shared.ledger.ran(order, &self.shared.name, life);
        format!("{} {life} {order}\n", self.shared.name)
    }

    fn next_number(&self) -> u64 {
        self.shared.answers.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn health(&self) -> Value {
        let (life, boot) = {
            let state = self.state();
            (state.life, state.boot)
        };
        let name = &self.shared.name;
        let mut health = json!({ "uptime_secs": self.next_number(), "hostname": name });
        if self.shared.dialect == Dialect::Objects {
            let samples = self.state().sample.as_ref().map(|_| Feature::Samples);
            let features = [Some(Feature::Exec), Some(Feature::Power), samples];
            let features: Vec<_> = features.into_iter().flatten().map(Feature::name).collect();
            health["agent"] = json!({
                "name": "guest", "version": "0", "protocol": 2,
                "features": features,
                "boot_id": format!("{name} boot {boot}"), "instance_id": format!("{name} {life}"),
            });
        }
        health
    }

    fn sample(&self) -> Option<Value> {
        match &self.state().sample {
            Some(SampleReply::Figures(figures)) => Some(figures.clone()),
            Some(SampleReply::Never) | None => None,
        }
    }

    fn status(&self) -> Value {
        json!({
            "uptime_secs": self.next_number(), "memory_total_mb": 2, "memory_used_mb": 1,
            "disk_total_gb": 2, "disk_used_gb": 1,
        })
    }
}

/// Returns the answer for a program that has already ended, or is lost: the reply, the output from offset `from` on,
/// and the exit.
fn attached(id: ExecId, created: bool, program: &ProgramState, from: Option<u64>) -> GuestAnswer {
    let (output, outcome) = match program {
        ProgramState::Ended(output) => (output.as_str(), Outcome::Exited { code: 0 }),
        ProgramState::Lost => ("", Outcome::Lost { reason: "the agent was restarted".into() }),
    };
    let from = from.unwrap_or(0).min(output.len() as u64);
    let reply = encode_reply(&ExecAttached {
        id,
        created,
        pid: 1,
        stdout: from,
        stderr: 0,
        stdin: 0,
        stdin_acked: 0,
        stdin_window: WINDOW,
        stdin_closed: true,
        reattach_grace_ms: None,
    });
    let rest = usize::try_from(from).ok().and_then(|from| output.as_bytes().get(from..));
    let payload = Bytes::copy_from_slice(rest.unwrap_or_default());
    let mut stream = BytesMut::new();
    if !payload.is_empty() {
        ChannelMessage { channel: Channel::Stdout, payload }.encode(&mut stream);
    }
    let ended = Ended { outcome, usage: Usage::default() };
    ChannelMessage::agent(&AgentControl::Exit(ended)).encode(&mut stream);
    GuestAnswer { reply: reply.unwrap_or_default(), stream: Some(stream.to_vec()) }
}
