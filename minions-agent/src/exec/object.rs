//! An exec: what its program, its client and everybody who asks share.
//!
//! ```text
//!              attach                    connection breaks
//!   Away ───────────────▶ Here ─────────────────────────────▶ Away ── 15 s ──▶ Gone
//!    (right after start)   │                                                    ▲
//!                          └── leave ───────────────────────────────────────────┘
//! ```
//!
//! While the client is *here* or *away*, output that it lacks is kept and the program waits if there
//! is too much of it. Once it is *gone*, `on_disconnect` ends the program or lets it go on by itself.

use super::input::Input;
use super::process::signal::of as raw_signal;
use super::process::{Cgroup, Record};
use super::ring::Ring;
use super::shown::{Shown, boot_ms};
use super::tail::Tail;
use minions_proto::Invalid;
use minions_proto::channel::{Ended, OutputStream};
use minions_proto::message::{
    ExecAttached, ExecId, ExecInfo, ExecStart, OnDisconnect, Outcome, REATTACH_GRACE, Role, Signal,
    Usage,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

/// Input that may be there without the program having taken it.
pub(super) const STDIN_WINDOW: usize = 256 * 1024;

/// How often to look whether what was left behind is gone: nothing tells us.
const LOOK: Duration = Duration::from_millis(10);

/// Signals that may wait for delivery. They are delivered at once; more than this is a flood.
const MAX_SIGNALS: usize = 64;

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(super) id: ExecId,
    pub(super) pid: u32,
    shown: Shown,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) started: Instant,
    state: Mutex<State>,
    /// For its readers: something has changed.
    pub(super) news: watch::Sender<()>,
    /// For whoever moves its bytes: there may be room, or input.
    pub(super) moved: Notify,
    /// For whoever watches over its process.
    pub(super) ordered: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) stdout: Ring,
    pub(super) stderr: Ring,
    pub(super) input: Input,
    client: Client,
    /// Which attachment is the client's: the newest.
    holder: u64,
    orders: Orders,
    /// Whether the process has been told to end.
    end_requested: bool,
    ended: Option<Ended>,
    /// What it left running is in there.
    leftover: Option<Cgroup>,
}

/// Where the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Here,
    Away { since: Instant },
    Gone,
}

/// What the process is to be told.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) signals: VecDeque<Signal>,
    pub(super) size: Option<(u16, u16)>,
    pub(super) end: bool,
}

/// Why somebody can't attach, or tell it something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecRefusal {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("it has ended")]
    Ended,
    #[error("{MAX_SIGNALS} signals wait for their delivery")]
    TooManySignals,
    #[error("more input than the window allows")]
    Window,
    #[error("input behind the input's end")]
    InputClosed,
}

impl Exec {
    pub(super) fn new(id: ExecId, pid: u32, start: &ExecStart) -> Self {
        let closed = !start.stdin;
        let input = Input { closed, refused: closed, ..Input::default() };
        // Whoever started it attaches next.
        let client = Client::Away { since: Instant::now() };
        let shown = Shown::of(start);
        Self::made(id, pid, shown, start.on_disconnect, State::new(input, client))
    }

    /// A program that an earlier agent started, and that runs on in `cgroup`. What is known of it is its
    /// end for this agent: it is lost.
    pub(super) fn lost(id: ExecId, record: Option<&Record>, cgroup: Cgroup, reason: &str) -> Self {
        let input = Input { closed: true, refused: true, ..Input::default() };
        let mut state = State::new(input, Client::Gone);
        state.stdout.finish();
        state.stderr.finish();
        state.leftover = Some(cgroup);
        let age_ms = record.map_or(0, |record| boot_ms().saturating_sub(record.started_ms));
        state.ended = Some(Ended {
            outcome: Outcome::Lost { reason: reason.to_owned() },
            usage: Usage { wall_ms: age_ms, ..Usage::default() },
        });
        let shown = record.map_or_else(Shown::unknown, Shown::recorded);
        let on_disconnect = record.map(|record| record.on_disconnect).unwrap_or_default();
        let pid = record.map_or(0, |record| record.pid);
        let mut exec = Self::made(id, pid, shown, on_disconnect, state);
        let started = exec.started.checked_sub(Duration::from_millis(age_ms));
        exec.started = started.unwrap_or(exec.started);
        exec
    }

    fn made(id: ExecId, pid: u32, shown: Shown, on_disconnect: OnDisconnect, state: State) -> Self {
        Self {
            id,
            pid,
            shown,
            on_disconnect,
            started: Instant::now(),
            state: Mutex::new(state),
            news: watch::Sender::new(()),
            moved: Notify::new(),
            ordered: Notify::new(),
        }
    }

    /// Never held over an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream to it, whose output begins at these offsets.
    pub(super) fn attach(
        self: &Arc<Self>,
        role: Role,
        stdout: Option<u64>,
        stderr: Option<u64>,
        created: bool,
    ) -> Result<(ExecAttached, Tail), ExecRefusal> {
        let mut state = self.state();
        // What an earlier agent's program wrote is gone, so any offset is behind its end.
        let is_lost = state.is_lost();
        let stdout = begin("stdout", stdout, &state.stdout, is_lost)?;
        let stderr = begin("stderr", stderr, &state.stderr, is_lost)?;
        let holder = match role {
            Role::Control => {
                state.stdout.acknowledge(stdout);
                state.stderr.acknowledge(stderr);
                state.holder += 1;
                // What its end has settled stays settled.
                if state.client != Client::Gone || self.on_disconnect == OnDisconnect::Detach {
                    state.client = Client::Here;
                }
                Some(state.holder)
            }
            Role::Watch | Role::Snapshot => None,
        };
        let until = (role == Role::Snapshot).then(|| [state.stdout.end(), state.stderr.end()]);
        let attached = ExecAttached {
            id: self.id.clone(),
            created,
            pid: self.pid,
            stdout,
            stderr,
            stdin: state.input.arrived,
            stdin_acked: state.input.taken(),
            stdin_window: STDIN_WINDOW as u64,
            stdin_closed: state.input.closed,
        };
        drop(state);
        if holder.is_some() {
            self.notify_all();
        }
        let tail = Tail::new(Arc::clone(self), [stdout, stderr], holder, until, &attached);
        Ok((attached, tail))
    }

    /// The client of an attachment goes: for good, or because its connection broke.
    pub(super) fn detach(&self, holder: u64, for_good: bool) {
        let mut state = self.state();
        // Another one has taken over.
        if state.holder != holder || state.client == Client::Gone {
            return;
        }
        if for_good {
            self.gone(&mut state);
        } else {
            state.client = Client::Away { since: Instant::now() };
        }
        drop(state);
        self.notify_all();
    }

    fn gone(&self, state: &mut State) {
        state.client = Client::Gone;
        state.orders.end |= self.on_disconnect == OnDisconnect::Kill;
    }

    /// Notices that the client doesn't come back. When to look again, if it may.
    pub(super) fn expire(&self) -> Option<Instant> {
        let mut state = self.state();
        let Client::Away { since } = state.client else { return None };
        let until = since + REATTACH_GRACE;
        if Instant::now() < until {
            return Some(until);
        }
        self.gone(&mut state);
        drop(state);
        self.notify_all();
        None
    }

    pub(super) fn notify_all(&self) {
        self.news.send_replace(());
        self.moved.notify_one();
        self.ordered.notify_one();
    }

    /// The client has this much output.
    pub(super) fn acknowledge(&self, holder: u64, stdout: u64, stderr: u64) {
        let mut state = self.state();
        if state.holder == holder {
            state.stdout.acknowledge(stdout);
            state.stderr.acknowledge(stderr);
            self.moved.notify_one();
        }
    }

    /// More input; nothing of it is its end.
    pub(super) fn push_input(&self, holder: u64, bytes: &[u8]) -> Result<(), ExecRefusal> {
        let mut state = self.state();
        if state.holder != holder {
            return Ok(());
        }
        let ended = state.ended.is_some();
        let input = &mut state.input;
        if bytes.is_empty() {
            input.closed = true;
        } else if input.closed {
            // A program without input, or one that has ended, takes whatever comes.
            if !input.refused && !ended {
                return Err(ExecRefusal::InputClosed);
            }
        } else if input.bytes.len() + bytes.len() > STDIN_WINDOW {
            return Err(ExecRefusal::Window);
        } else {
            input.arrived += bytes.len() as u64;
            if input.refused || ended {
                self.news.send_replace(());
            } else {
                input.bytes.extend(bytes);
            }
        }
        self.moved.notify_one();
        Ok(())
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), ExecRefusal> {
        let mut state = self.state();
        if state.is_lost() {
            let left = state.leftover.as_ref();
            let told = left.map(|left| left.signal(raw_signal(signal))).unwrap_or_default();
            return if told.is_empty() { Err(ExecRefusal::Ended) } else { Ok(()) };
        }
        if state.ended.is_some() {
            return Err(ExecRefusal::Ended);
        }
        if state.orders.signals.len() >= MAX_SIGNALS {
            return Err(ExecRefusal::TooManySignals);
        }
        state.orders.signals.push_back(signal);
        drop(state);
        self.ordered.notify_one();
        Ok(())
    }

    /// Whether this attachment is the client's still.
    pub(super) fn is_held_by(&self, holder: u64) -> bool {
        self.state().holder == holder
    }

    /// Its terminal has another size.
    pub(super) fn resize(&self, rows: u16, cols: u16) {
        self.state().orders.size = Some((rows, cols));
        self.ordered.notify_one();
    }

    /// It shall end, whoever is there; what it left behind too.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.client = Client::Gone;
        state.orders.end = true;
        if let Some(leftover) = &state.leftover {
            leftover.kill();
        }
        drop(state);
        self.notify_all();
    }

    /// What there is to be told.
    pub(super) fn take_orders(&self) -> Orders {
        let mut state = self.state();
        let end = state.orders.end;
        Orders { end, ..std::mem::take(&mut state.orders) }
    }

    /// Its program wrote this.
    pub(super) fn wrote(&self, stream: OutputStream, bytes: &[u8]) {
        let mut state = self.state();
        state.ring_mut(stream).push(bytes);
        drop(state);
        self.news.send_replace(());
    }

    /// It is over; everything that it wrote was pushed.
    pub(super) fn finish(&self, ended: Ended, leftover: Option<Cgroup>) {
        let mut state = self.state();
        state.stdout.finish();
        state.stderr.finish();
        state.input.refuse();
        state.ended = Some(ended);
        state.leftover = leftover;
        drop(state);
        self.notify_all();
    }

    /// Notes that its process is being told to end.
    pub(super) fn request_end(&self) {
        self.state().end_requested = true;
        self.news.send_replace(());
    }

    /// Waits for its end, no longer than `patience`; returns whether it has ended. Cancel safe.
    pub(super) async fn ended_within(&self, patience: Duration) -> bool {
        let mut news = self.news.subscribe();
        let ended = news.wait_for(|()| self.state().ended.is_some());
        // The sender lives as long as `self`.
        tokio::time::timeout(patience, ended).await.is_ok()
    }

    /// How many processes run on that it left behind, its end notwithstanding.
    pub(super) fn left_running(&self) -> Option<u64> {
        self.state().left_running()
    }

    /// Waits until nothing that it left behind runs, no longer than `patience`. Cancel safe.
    pub(super) async fn left_within(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.left_running().is_some() && Instant::now() < until {
            sleep(LOOK).await;
        }
    }

    /// Drops what is kept of its output.
    pub(super) fn forget_output(&self) {
        let mut state = self.state();
        state.stdout.forget();
        state.stderr.forget();
        drop(state);
        self.news.send_replace(());
    }

    pub(super) fn info(&self) -> ExecInfo {
        let mut state = self.state();
        let left_running = state.left_running();
        ExecInfo {
            id: self.id.clone(),
            command: self.shown.command.clone(),
            args: self.shown.args.clone(),
            user: self.shown.user.clone(),
            tty: self.shown.tty,
            pid: self.pid,
            age_ms: millis(self.started.elapsed()),
            attached: state.client == Client::Here,
            on_disconnect: self.on_disconnect,
            stdout_bytes: state.stdout.end(),
            stdout_kept_from: state.stdout.start(),
            stderr_bytes: state.stderr.end(),
            stderr_kept_from: state.stderr.start(),
            stdin_bytes: state.input.arrived,
            end_requested: (state.end_requested && state.ended.is_none()).then_some(true),
            outcome: state.ended.as_ref().map(|ended| ended.outcome.clone()),
            usage: state.ended.as_ref().map(|ended| ended.usage),
            left_running,
        }
    }

    /// Bytes of output that it keeps.
    pub(super) fn memory(&self) -> usize {
        let state = self.state();
        state.stdout.memory() + state.stderr.memory()
    }
}

/// The first offset that a stream sends: what was asked for, or the oldest that there is.
fn begin(field: &str, asked: Option<u64>, ring: &Ring, is_lost: bool) -> Result<u64, Invalid> {
    match asked {
        Some(offset) if offset > ring.end() && !is_lost => {
            let reason = format!("is {offset}: the program has written {} bytes", ring.end());
            Err(Invalid::new(field, reason))
        }
        Some(offset) => Ok(offset),
        None => Ok(ring.start()),
    }
}

impl State {
    fn new(input: Input, client: Client) -> Self {
        Self {
            stdout: Ring::default(),
            stderr: Ring::default(),
            input,
            client,
            holder: 0,
            orders: Orders::default(),
            end_requested: false,
            ended: None,
            leftover: None,
        }
    }

    fn is_lost(&self) -> bool {
        self.ended.as_ref().is_some_and(|end| matches!(end.outcome, Outcome::Lost { .. }))
    }

    fn left_running(&mut self) -> Option<u64> {
        let left = self.leftover.take_if(|left| !left.is_alive());
        // Removed with its directory.
        drop(left);
        // Groups that the program made within its own count as one process.
        self.leftover.as_ref().map(|left| left.processes().max(1))
    }

    pub(super) fn ring(&self, stream: OutputStream) -> &Ring {
        match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        }
    }

    fn ring_mut(&mut self, stream: OutputStream) -> &mut Ring {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Whether output that the client lacks must be kept.
    pub(super) fn holds(&self) -> bool {
        self.client != Client::Gone
    }

    /// The attachment that is the client's.
    pub(super) fn holder(&self) -> u64 {
        self.holder
    }

    pub(super) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
