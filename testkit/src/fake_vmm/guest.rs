//! A guest that runs nothing: it speaks the wire, exec objects included, books every program that it
//! is asked to run in a [`Ledger`], and misbehaves as it is told to. Cheap enough for hundreds.
//!
//! Its answers can be told apart. A program's output names the guest, its life and the order; health
//! and status carry a number in `uptime_secs` that no answer of the same guest had before.

mod manner;

pub use manner::Manner;

use super::Ledger;
use super::behaviour::{request, until_end};
use bytes::{Bytes, BytesMut};
use minions_proto::AgentError;
use minions_proto::channel::{AgentControl, Channel, Ended, Message};
use minions_proto::error::ErrorCode;
use minions_proto::frame::Decoder;
use minions_proto::message::{
    Done, EXEC_FEATURE, ExecAttached, ExecId, Outcome, POWER_FEATURE, Request, Usage, encode_error,
    encode_reply,
};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::sleep;

/// Programs that are remembered, so that the same id isn't run twice.
const REMEMBERED: usize = 1024;

/// Input that may be on its way; nothing here reads any.
const WINDOW: u64 = 64 * 1024;

/// One guest. Clones are the same.
#[derive(Debug, Clone)]
pub struct Guest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    dialect: Dialect,
    ledger: Arc<Ledger>,
    /// Answers so far, those of its predecessors under the same name included.
    answers: Arc<AtomicU64>,
    running: watch::Sender<bool>,
    state: Mutex<State>,
}

/// How much of the protocol a guest's agent knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The base protocol only.
    Base,
    /// Programs as objects.
    Objects,
}

/// Connections on which a guest broke the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaches {
    /// All of them.
    pub made: u32,
    /// Those on which nothing was asked any more before they were closed.
    pub closed: u32,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    breaches: Breaches,
    life: u64,
    boot: u64,
    ends_asked_for: u32,
    programs: HashMap<ExecId, Program>,
    oldest_first: VecDeque<ExecId>,
}

/// A program that was started.
#[derive(Debug, Clone)]
enum Program {
    /// It has ended, with this output.
    Ended(String),
    /// It belongs to an agent that was killed.
    Lost,
}

/// What a request comes to: a frame, and what follows it in channel mode.
struct Answer {
    reply: Vec<u8>,
    stream: Option<Vec<u8>>,
}

impl Guest {
    /// A guest in its `life`th life.
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
        let state = State {
            manner: Manner::Well,
            breaches: Breaches::default(),
            life,
            boot: life,
            ends_asked_for: 0,
            programs: HashMap::new(),
            oldest_first: VecDeque::new(),
        };
        let (name, state, running) = (name.to_owned(), Mutex::new(state), watch::Sender::new(true));
        Self { shared: Arc::new(Shared { name, dialect, ledger, answers, running, state }) }
    }

    /// Another guest of the same name, which goes on counting where this one is.
    #[must_use]
    pub fn successor(&self, life: u64) -> Self {
        let Shared { name, dialect, ledger, answers, .. } = &*self.shared;
        Self::with(name, *dialect, life, Arc::clone(ledger), Arc::clone(answers))
    }

    /// Behaves so from the next request on.
    pub fn behave(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// Stops its processors, as a VMM that pauses it: connections are neither granted nor answered until
    /// [`resume`](Self::resume), and everything that was asked meanwhile is answered then.
    pub fn pause(&self) {
        self.shared.running.send_replace(false);
    }

    /// Ends [`pause`](Self::pause).
    pub fn resume(&self) {
        self.shared.running.send_replace(true);
    }

    /// Waits while it is paused.
    pub(super) async fn runs(&self) {
        // The sender is ours.
        let _ = self.shared.running.subscribe().wait_for(|running| *running).await;
    }

    /// Starts again, as another life of its agent. What was asked before is never answered, and a connection
    /// from before stays silent until something more is sent on it: as a guest that was reset, whose kernel
    /// answers that with a reset of the connection. `reboots` says whether its kernel starts again too.
    pub fn restart(&self, life: u64, reboots: bool) {
        let mut state = self.state();
        state.life = life;
        if reboots {
            state.boot = life;
        }
        state.programs.clear();
        state.oldest_first.clear();
    }

    /// The guest's kernel kills its agent for lack of memory, and another one starts: every program of the former
    /// one is listed as lost, and never runs again.
    pub fn loses_its_agent(&self, life: u64) {
        let mut state = self.state();
        state.life = life;
        state.programs.values_mut().for_each(|program| *program = Program::Lost);
    }

    /// Answers so far. One that is given later has a higher number.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::SeqCst)
    }

    /// How often it was asked to power off or to reboot.
    #[must_use]
    pub fn ends_asked_for(&self) -> u32 {
        self.state().ends_asked_for
    }

    /// What became of the connections on which it broke the protocol.
    #[must_use]
    pub fn breaches(&self) -> Breaches {
        self.state().breaches
    }

    /// Never held over an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection behind its handshake.
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
            let Answer { reply, stream: then } = self.answer(&payload);
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

    /// Says nothing, until the client goes away or sends something to a guest that started again.
    async fn until_reset(&self, connected_to: u64, stream: &mut UnixStream) -> std::io::Result<()> {
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {
            if self.state().life != connected_to {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says nothing any more, and sees what the host makes of that.
    async fn breached(&self, stream: &mut UnixStream) -> std::io::Result<()> {
        self.state().breaches.made += 1;
        // A host that closes without having read everything resets.
        if stream.read(&mut [0]).await.unwrap_or(0) == 0 {
            self.state().breaches.closed += 1;
            return Ok(());
        }
        until_end(stream).await
    }

    fn answer(&self, payload: &[u8]) -> Answer {
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
            // Heard, and no more: what follows is the test's to do.
            Ok(Request::Power(_)) if self.shared.dialect == Dialect::Objects => {
                self.state().ends_asked_for += 1;
                encode_reply(&Done { message: "the guest will end".into() })
            }
            Ok(_) => encode_error(&AgentError::new(ErrorCode::Unsupported, "not in this guest")),
            Err(error) => encode_error(&error.into()),
        };
        // Short and plain, all of them.
        Answer { reply: answer.unwrap_or_default(), stream: None }
    }

    fn start(&self, id: Option<ExecId>, order: Option<&String>) -> Answer {
        let Some(id) = id else {
            let refusal = AgentError::new(ErrorCode::BadRequest, "an id is wanted");
            return Answer { reply: encode_error(&refusal).unwrap_or_default(), stream: None };
        };
        // One look and one entry: whoever comes with the same id meanwhile waits.
        let mut state = self.state();
        if let Some(program) = state.programs.get(&id) {
            return attached(id, false, program, None);
        }
        let program = Program::Ended(self.run(state.life, order));
        state.programs.insert(id.clone(), program.clone());
        state.oldest_first.push_back(id.clone());
        if state.oldest_first.len() > REMEMBERED
            && let Some(oldest) = state.oldest_first.pop_front()
        {
            state.programs.remove(&oldest);
        }
        attached(id, true, &program, None)
    }

    fn remembered(&self, id: &ExecId) -> Option<Program> {
        self.state().programs.get(id).cloned()
    }

    /// The side effect, and what it writes.
    fn run(&self, life: u64, order: Option<&String>) -> String {
        let order = order.map_or("", String::as_str);
        self.shared.ledger.ran(order, &self.shared.name);
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
            health["agent"] = json!({
                "name": "guest", "version": "0", "protocol": 2, "features": [EXEC_FEATURE, POWER_FEATURE],
                "boot_id": format!("{name} boot {boot}"), "instance_id": format!("{name} {life}"),
            });
        }
        health
    }

    fn status(&self) -> Value {
        json!({
            "uptime_secs": self.next_number(), "memory_total_mb": 2, "memory_used_mb": 1,
            "disk_total_gb": 2, "disk_used_gb": 1,
        })
    }
}

/// A program that has ended already, or is lost: its reply, its output from an offset on, its end.
fn attached(id: ExecId, created: bool, program: &Program, from: Option<u64>) -> Answer {
    let (output, outcome) = match program {
        Program::Ended(output) => (output.as_str(), Outcome::Exited { code: 0 }),
        Program::Lost => ("", Outcome::Lost { reason: "the agent was started again".into() }),
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
    });
    let rest = usize::try_from(from).ok().and_then(|from| output.as_bytes().get(from..));
    let payload = Bytes::copy_from_slice(rest.unwrap_or_default());
    let mut stream = BytesMut::new();
    if !payload.is_empty() {
        Message { channel: Channel::Stdout, payload }.encode(&mut stream);
    }
    let ended = Ended { outcome, usage: Usage::default() };
    Message::agent(&AgentControl::Exit(ended)).encode(&mut stream);
    Answer { reply: reply.unwrap_or_default(), stream: Some(stream.to_vec()) }
}
