//! An exec: the state shared by its program, its client, and all other callers.
//!
//! ```text
//!              attach                    connection breaks
//!   Away ───────────────▶ Here ─────────────────────────────▶ Away ─ grace ──▶ Gone
//!    (right after start)   │                                                    ▲
//!                          └── leave ───────────────────────────────────────────┘
//! ```
//!
//! While the client is *here* or *away*, output that it lacks is kept, and the program waits if there is too much of
//! it. The re-attach grace (60 s by default) limits the time *away*. Once the client is *gone*, `on_disconnect` ends
//! the program or lets it run on without a client.

use super::error::ExecRefusal;
use super::exec_state::{ClientPresence, ExecState, PendingOrders, first_offset};
use super::input::InputBuffer;
use super::process::signal::of as raw_signal;
use super::process::{Cgroup, ProgramRecord};
use super::program_summary::ProgramSummary;
use super::tail::ExecTail;
use crate::boot_clock::{self, milliseconds};
use crate::lock::lock;
use minions_proto::channel::{Ended, OutputStream};
use minions_proto::message::{
    ExecAttached, ExecId, ExecInfo, ExecStart, OnDisconnect, Outcome, REATTACH_GRACE, Role, Signal,
    Usage,
};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

/// Limit of input that has arrived and that the program has not taken yet, in bytes.
pub(super) const STDIN_WINDOW: usize = 256 * 1024;

/// Poll interval while waiting for leftover processes to end: there is no notification.
const LOOK: Duration = Duration::from_millis(10);

/// Limit of signals that wait for delivery. Signals are delivered at once, so more than this is a flood.
pub(super) const MAX_SIGNALS: usize = 64;

/// A started program, with its output, its input and its client.
#[derive(Debug)]
pub(crate) struct Exec {
    /// Id that the client chose or the agent generated.
    pub(super) id: ExecId,
    /// Generation of the guest in which the program was started.
    pub(super) generation: u64,
    pub(super) pid: u32,
    summary: ProgramSummary,
    pub(super) on_disconnect: OnDisconnect,
    /// Time for which an absent client may re-attach.
    reattach_grace: Duration,
    pub(super) started: Instant,
    state: Mutex<ExecState>,
    /// Notifies the exec's readers of any change.
    pub(super) news: watch::Sender<()>,
    /// Notifies the pump that there may be room for output, or input to write.
    pub(super) moved: Notify,
    /// Notifies the task that owns the process of new orders.
    pub(super) ordered: Notify,
}

impl Exec {
    pub(super) fn new(id: ExecId, pid: u32, start: &ExecStart) -> Self {
        let closed = !start.stdin;
        let input = InputBuffer { closed, refused: closed, ..InputBuffer::default() };
        // The client that started it attaches next.
        let client = ClientPresence::Away { since: Instant::now() };
        let summary = ProgramSummary::of(start);
        let mut exec =
            Self::made(id, pid, summary, start.on_disconnect, ExecState::new(input, client));
        let asked = start.reattach_grace_ms.map(Duration::from_millis);
        exec.reattach_grace = asked.unwrap_or(REATTACH_GRACE);
        exec
    }

    /// Returns the exec of a program that an earlier agent started and that still runs in `cgroup`. Its outcome
    /// is `lost`: its output and its end are not known to this agent.
    pub(super) fn lost(
        id: ExecId,
        record: Option<&ProgramRecord>,
        cgroup: Cgroup,
        reason: &str,
    ) -> Self {
        let input = InputBuffer { closed: true, refused: true, ..InputBuffer::default() };
        let mut state = ExecState::new(input, ClientPresence::Gone);
        state.stdout.finish();
        state.stderr.finish();
        state.leftover = Some(cgroup);
        let age_ms =
            record.map_or(0, |record| boot_clock::now_ms().saturating_sub(record.started_ms));
        state.ended = Some(Ended {
            outcome: Outcome::Lost { reason: reason.to_owned() },
            usage: Usage { wall_ms: age_ms, ..Usage::default() },
        });
        let summary = record.map_or_else(ProgramSummary::unknown, ProgramSummary::recorded);
        let on_disconnect = record.map(|record| record.on_disconnect).unwrap_or_default();
        let pid = record.map_or(0, |record| record.pid);
        let mut exec = Self::made(id, pid, summary, on_disconnect, state);
        let started = exec.started.checked_sub(Duration::from_millis(age_ms));
        exec.started = started.unwrap_or(exec.started);
        exec
    }

    fn made(
        id: ExecId,
        pid: u32,
        summary: ProgramSummary,
        on_disconnect: OnDisconnect,
        state: ExecState,
    ) -> Self {
        Self {
            id,
            generation: 0,
            pid,
            summary,
            on_disconnect,
            reattach_grace: REATTACH_GRACE,
            started: Instant::now(),
            state: Mutex::new(state),
            news: watch::Sender::new(()),
            moved: Notify::new(),
            ordered: Notify::new(),
        }
    }

    /// Sets the generation in which the program was started.
    pub(super) fn of_generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// Records that a later generation inherits the program, under this id. Its streams end.
    pub(super) fn inherit(&self, id: ExecId) {
        self.state().inherited_as = Some(id);
        self.news.send_replace(());
    }

    /// Returns the id under which the exec is found.
    pub(super) fn listed_id(&self) -> ExecId {
        self.state().inherited_as.clone().unwrap_or_else(|| self.id.clone())
    }

    /// Locks the state. The guard must not be held across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, ExecState> {
        lock(&self.state)
    }

    /// Opens a stream to the exec. Its output begins at these offsets, or at the oldest bytes that are kept.
    ///
    /// Refuses an offset beyond the end of the output.
    pub(super) fn attach(
        self: &Arc<Self>,
        role: Role,
        stdout: Option<u64>,
        stderr: Option<u64>,
        created: bool,
    ) -> Result<(ExecAttached, ExecTail), ExecRefusal> {
        let mut state = self.state();
        // The length of output that went to an earlier agent is unknown: accept any offset.
        let is_lost = state.is_lost();
        let stdout = first_offset("stdout", stdout, &state.stdout, is_lost)?;
        let stderr = first_offset("stderr", stderr, &state.stderr, is_lost)?;
        let holder = match role {
            Role::Control => {
                state.stdout.acknowledge(stdout);
                state.stderr.acknowledge(stderr);
                state.holder += 1;
                // Once the client is gone, the program's end has been ordered, unless `on_disconnect` is `detach`.
                // Attaching does not undo this.
                if state.client != ClientPresence::Gone
                    || self.on_disconnect == OnDisconnect::Detach
                {
                    state.client = ClientPresence::Here;
                }
                Some(state.holder)
            }
            Role::Watch | Role::Snapshot => None,
        };
        let until = (role == Role::Snapshot).then(|| [state.stdout.end(), state.stderr.end()]);
        let attached = ExecAttached {
            id: state.inherited_as.clone().unwrap_or_else(|| self.id.clone()),
            created,
            pid: self.pid,
            stdout,
            stderr,
            stdin: state.input.arrived,
            stdin_acked: state.input.taken(),
            stdin_window: STDIN_WINDOW as u64,
            stdin_closed: state.input.closed,
            reattach_grace_ms: Some(milliseconds(self.reattach_grace)),
        };
        drop(state);
        if holder.is_some() {
            self.notify_all();
        }
        let tail = ExecTail::new(Arc::clone(self), [stdout, stderr], holder, until, &attached);
        Ok((attached, tail))
    }

    /// Ends an attachment: `for_good` if its client left, otherwise because its connection broke.
    pub(super) fn detach(&self, holder: u64, for_good: bool) {
        let mut state = self.state();
        // Another attachment has taken over, or the client is already gone.
        if state.holder != holder || state.client == ClientPresence::Gone {
            return;
        }
        if for_good {
            self.gone(&mut state);
        } else {
            state.client = ClientPresence::Away { since: Instant::now() };
        }
        drop(state);
        self.notify_all();
    }

    fn gone(&self, state: &mut ExecState) {
        state.client = ClientPresence::Gone;
        state.orders.end |= self.on_disconnect == OnDisconnect::Kill;
    }

    /// Marks an absent client as gone once its re-attach grace period has passed. Until then, returns the
    /// time of the next check.
    pub(super) fn expire(&self) -> Option<Instant> {
        let mut state = self.state();
        let ClientPresence::Away { since } = state.client else { return None };
        let until = since + self.reattach_grace;
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

    /// Records that the client has all output before these offsets.
    pub(super) fn acknowledge(&self, holder: u64, stdout: u64, stderr: u64) {
        let mut state = self.state();
        if state.holder == holder {
            state.stdout.acknowledge(stdout);
            state.stderr.acknowledge(stderr);
            self.moved.notify_one();
        }
    }

    /// Appends input for the program; an empty slice ends the input.
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
            // Input for a program that takes none, or that has ended, is accepted and dropped.
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

    /// Queues a signal for the process. A lost program's remaining processes get it immediately.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), ExecRefusal> {
        let mut state = self.state();
        if state.is_lost() {
            let left = state.leftover.as_ref();
            let signalled = left.map(|left| left.signal(raw_signal(signal))).unwrap_or_default();
            return if signalled.is_empty() { Err(ExecRefusal::Ended) } else { Ok(()) };
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

    /// Reports whether no later attachment has taken over from this one.
    pub(super) fn is_held_by(&self, holder: u64) -> bool {
        self.state().holder == holder
    }

    /// Orders a new size for the terminal.
    pub(super) fn resize(&self, rows: u16, cols: u16) {
        self.state().orders.size = Some((rows, cols));
        self.ordered.notify_one();
    }

    /// Orders the program's end, even if a client is attached, and kills leftover processes.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.client = ClientPresence::Gone;
        state.orders.end = true;
        if let Some(leftover) = &state.leftover {
            leftover.kill();
        }
        drop(state);
        self.notify_all();
    }

    /// Takes the pending orders; an order to end remains.
    pub(super) fn take_orders(&self) -> PendingOrders {
        let mut state = self.state();
        let end = state.orders.end;
        PendingOrders { end, ..std::mem::take(&mut state.orders) }
    }

    /// Appends output of the program.
    pub(super) fn wrote(&self, stream: OutputStream, bytes: &[u8]) {
        let mut state = self.state();
        state.ring_mut(stream).push(bytes);
        drop(state);
        self.news.send_replace(());
    }

    /// Records the end of the program, after all of its output was appended.
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

    /// Records that the process is being told to end.
    pub(super) fn request_end(&self) {
        self.state().end_requested = true;
        self.news.send_replace(());
    }

    /// Waits up to `patience` for the end; returns whether the exec has ended. Cancel safe.
    pub(super) async fn ended_within(&self, patience: Duration) -> bool {
        let mut news = self.news.subscribe();
        let ended = news.wait_for(|()| self.state().ended.is_some());
        // The sender lives as long as `self`.
        tokio::time::timeout(patience, ended).await.is_ok()
    }

    /// Returns the number of processes that outlived the program and still run, or `None` without any.
    pub(super) fn left_running(&self) -> Option<u64> {
        self.state().left_running()
    }

    /// Waits up to `patience` until no leftover process runs. Cancel safe.
    pub(super) async fn left_within(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.left_running().is_some() && Instant::now() < until {
            sleep(LOOK).await;
        }
    }

    /// Drops the output that is kept.
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
        let inherited = state.inherited_as.clone();
        ExecInfo {
            inherited: inherited.is_some().then_some(true),
            started_as: inherited.is_some().then(|| self.id.clone()),
            generation: (self.generation > 0 || inherited.is_some()).then_some(self.generation),
            id: inherited.unwrap_or_else(|| self.id.clone()),
            command: self.summary.command.clone(),
            args: self.summary.args.clone(),
            user: self.summary.user.clone(),
            tty: self.summary.tty,
            pid: self.pid,
            age_ms: milliseconds(self.started.elapsed()),
            attached: state.client == ClientPresence::Here,
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

    /// Returns the memory that is used by kept output, in bytes.
    pub(super) fn memory(&self) -> usize {
        let state = self.state();
        state.stdout.memory() + state.stderr.memory()
    }
}
