//! Running programs.
//!
//! ```text
//!  start ─▶ registry ─▶ launch ─▶ Exec ◀─────── attach ── ExecTail ─▶ a stream, or the base reply
//!            one per id            │  ring of stdout, ring of stderr, input
//!                                  │
//!                                 ProgramTask: one per program
//!                                  ├─ StreamPump: pipes or terminal ⇄ rings and input
//!                                  └─ RunningProcess: own session, own cgroup; at the time limit, or
//!                                     once it must end: TERM, grace period, KILL to the whole tree
//! ```
//!
//! An exec is an object: it outlives the connection that started it, and clients re-attach by its id. The
//! base `exec` request starts an exec, collects its output, and forgets it.
//!
//! A program ends when its own process ends, not when the last process that holds its pipes does:
//! `sh -c 'sleep 300 &'` ends at once, and the sleep runs on. Such a leftover process finds its pipes closed
//! after the drain. The exec stays listed as long as leftover processes run, and programs that outlive
//! their agent are listed too ([`lost`]), so that every process started by an exec can be found.

mod agent_variables;
mod collect;
mod error;
mod exec_state;
mod fit;
mod input;
mod json_text;
mod launch;
mod listing;
mod lookup;
mod lost;
mod object;
mod pipe;
mod process;
mod program_summary;
mod program_task;
mod pump;
mod registry;
mod ring;
mod tail;
mod user;
mod user_files;

pub(crate) use error::{ExecError, ExecRefusal};
pub(crate) use object::Exec;
pub use process::ProgramGroups;
pub(crate) use process::signal::of as raw_signal;
pub(crate) use tail::{ClientHandle, ExecTail, TailEvent};
pub(crate) use user::{UserError, find_account, find_identity};

use crate::boot_clock;
use crate::protection::ProgramDefaults;
use launch::{InputKind, LaunchedProgram, launch};
use minions_proto::message::{
    ExecAttach, ExecAttached, ExecId, ExecInfo, ExecInspect, ExecListed, ExecSignal, ExecStart,
    MAX_TIMEOUT_MS, Outcome, Role,
};
use process::{AgentProcess, CgroupFactory, ProgramRecord};
use program_summary::ProgramSummary;
use program_task::ProgramTask;
use pump::StreamPump;
use registry::{ExecRegistry, IdLookup, KnownRequest, StartResult};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit of programs that run at the same time. Each may hold 1 MiB of output.
const MAX_RUNNING: usize = 64;

/// Limit of hooks that run at the same time.
const MAX_HOOKS_RUNNING: usize = 4;

/// Default grace period between TERM and KILL. Short enough that a program with a time limit of one second
/// ends within two, long enough to write a file and exit.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// Longest time that `exec_remove` waits for the end: a grace period of up to a minute, and the time that killed
/// processes take to end. Only a process in an uninterruptible sleep, or a frozen one, takes longer.
const REMOVAL: Duration = Duration::from_secs(90);
/// Longest time that `exec_remove` waits for killed leftover processes to end.
const LEFT: Duration = Duration::from_secs(5);

/// Starts programs, at most [`MAX_RUNNING`] at the same time, and serves requests for their execs. Clones share the
/// limit and the execs.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    shared: Arc<ExecutorState>,
    default_timeout: Duration,
    /// User of execs that name none.
    default_user: Option<String>,
    /// Limit of hooks, apart from that of other programs: a busy guest must still run its hooks.
    hook_slots: Arc<Semaphore>,
}

#[derive(Debug)]
struct ExecutorState {
    slots: Arc<Semaphore>,
    registry: ExecRegistry,
    cgroups: CgroupFactory,
    owner: AgentProcess,
    defaults: ProgramDefaults,
    minted: AtomicU64,
    /// Number of programs that were started.
    started: AtomicU64,
    /// Random keys of the fingerprints.
    hasher: RandomState,
}

/// Reason why a program is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgramOrigin {
    /// A request of a client.
    Request,
    /// An event, of which the program is a hook. No client has its id, and no generation inherits it.
    Hook,
}

/// Handling of an exec after its end: kept for later requests, or forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retention {
    Keep,
    Forget,
}

impl Executor {
    pub(crate) fn new(
        default_timeout: Duration,
        default_user: Option<String>,
        defaults: ProgramDefaults,
        groups: ProgramGroups,
    ) -> Self {
        let (registry, cgroups) = (ExecRegistry::default(), CgroupFactory::find(groups));
        lost::adopt(&registry, &cgroups);
        Self {
            shared: Arc::new(ExecutorState {
                slots: Arc::new(Semaphore::new(MAX_RUNNING)),
                registry,
                cgroups,
                owner: AgentProcess::this(),
                defaults,
                minted: AtomicU64::new(0),
                started: AtomicU64::new(0),
                hasher: RandomState::new(),
            }),
            default_timeout: default_timeout.min(Duration::from_millis(MAX_TIMEOUT_MS)),
            default_user,
            hook_slots: Arc::new(Semaphore::new(MAX_HOOKS_RUNNING)),
        }
    }

    /// Starts an operation on files, a program of the agent itself, and attaches to it, or only attaches if an exec with
    /// this id exists. Otherwise as [`start`](Self::start).
    pub(crate) async fn start_file_operation(&self, start: ExecStart) -> AttachResult {
        self.begin(start, InputKind::Socket, Retention::Keep).await
    }

    /// Starts a program and attaches to it, or only attaches if an exec with this id exists.
    ///
    /// If the future is dropped, the start still completes; no client is attached then, and the re-attach
    /// grace period runs.
    pub(crate) async fn start(&self, start: ExecStart) -> AttachResult {
        self.begin(start, InputKind::Pipe, Retention::Keep).await
    }

    async fn begin(
        &self,
        mut start: ExecStart,
        input: InputKind,
        afterwards: Retention,
    ) -> AttachResult {
        start.user = start.user.or_else(|| self.default_user.clone());
        self.begin_from(ProgramOrigin::Request, start, input, afterwards).await
    }

    /// Starts a program of exactly the user of `start`, which counts towards the limit of its origin.
    async fn begin_from(
        &self,
        origin: ProgramOrigin,
        mut start: ExecStart,
        input: InputKind,
        afterwards: Retention,
    ) -> AttachResult {
        start.validate()?;
        let id = start.id.get_or_insert_with(|| self.shared.mint()).clone();
        let (slots, request) = match origin {
            ProgramOrigin::Request => {
                (&self.shared.slots, KnownRequest::Hash(self.shared.fingerprint(&start)))
            }
            ProgramOrigin::Hook => (&self.hook_slots, KnownRequest::Hook),
        };
        let found = self.shared.registry.find_or_begin(&id, request)?;
        let (exec, created) = match found {
            IdLookup::Known(known) => (known.begun().await?, false),
            IdLookup::New { sender, generation } => {
                let mut receiver = sender.subscribe();
                let (shared, slots) = (Arc::clone(&self.shared), Arc::clone(slots));
                crate::task::spawn(async move {
                    let begun = shared.run(slots, (id, generation), start, input, afterwards).await;
                    // `send` would fail if all requesters are gone.
                    sender.send_replace(Some(begun));
                });
                let begun = receiver.wait_for(Option::is_some).await.map(|begun| begun.clone());
                let begun = begun.ok().flatten();
                (begun.unwrap_or(Err(ExecError::Interrupted))?, true)
            }
        };
        Ok(exec.attach(Role::Control, None, None, created)?)
    }

    /// Opens a stream to an existing exec.
    pub(crate) async fn attach(&self, attach: ExecAttach) -> AttachResult {
        let ExecAttach { id, stdout, stderr, role } = attach;
        let exec = self.shared.registry.find(&id)?.begun().await?;
        Ok(exec.attach(role, stdout, stderr, false)?)
    }

    /// Begins the generation after `ended`: its ids are free, and running programs are inherited, also for the next agent.
    pub(crate) fn begin_generation(&self, ended: u64) {
        // First: if the agent is killed in between, the programs are inherited ones.
        self.shared.cgroups.store_generation(ended + 1);
        self.shared.registry.begin_generation(ended);
    }

    /// Returns the generation of the guest that an earlier agent has begun; 0 without one.
    pub(crate) fn generation(&self) -> u64 {
        self.shared.registry.generation()
    }

    /// Returns the number of programs of clients that run, and the number of programs that were started, including hooks.
    pub(crate) fn counts(&self) -> (u32, u64) {
        let running = MAX_RUNNING - self.shared.slots.available_permits();
        (u32::try_from(running).unwrap_or(u32::MAX), self.shared.started.load(Ordering::Relaxed))
    }

    pub(crate) fn list(&self) -> ExecListed {
        listing::listed(self.shared.registry.all().iter().map(|exec| exec.info()).collect())
    }

    /// Returns the state of an exec, after waiting up to `wait_ms` for its end. Dropping the future does not
    /// affect the exec.
    pub(crate) async fn inspect(&self, inspect: ExecInspect) -> Result<ExecInfo, ExecError> {
        let known = self.shared.registry.find(&inspect.id)?;
        let exec = known.begun().await?;
        if let Some(wait_ms) = inspect.wait_ms {
            exec.ended_within(Duration::from_millis(wait_ms.min(MAX_TIMEOUT_MS))).await;
        }
        Ok(exec.info())
    }

    pub(crate) async fn signal(&self, signal: ExecSignal) -> Result<(), ExecError> {
        let known = self.shared.registry.find(&signal.id)?;
        Ok(known.begun().await?.signal(signal.signal)?)
    }

    /// Ends an exec with every process that it started, and forgets it. An exec that does not end keeps its id
    /// and its slot.
    pub(crate) async fn remove(&self, id: &ExecId) -> Result<ExecInfo, ExecError> {
        let exec = self.shared.registry.find(id)?.begun().await?;
        exec.end();
        if !exec.ended_within(REMOVAL).await {
            return Err(ExecError::NotEnded(id.clone()));
        }
        exec.left_within(LEFT).await;
        let info = exec.info();
        // Leftover processes that survive the kill (they wait for a dead disk, for example) keep it listed.
        if info.left_running.is_none() {
            self.shared.registry.forget(&exec);
        }
        Ok(info)
    }
}

impl Executor {
    /// Ends the programs of earlier agents whose command is chosen, and waits for their end.
    pub(crate) async fn end_lost(&self, is_chosen: impl Fn(&Path) -> bool) {
        for known in self.shared.registry.all() {
            let info = known.info();
            let is_lost = matches!(info.outcome, Some(Outcome::Lost { .. }));
            if is_lost
                && is_chosen(Path::new(&info.command))
                && let Err(error) = self.remove(&info.id).await
            {
                tracing::warn!(%error, id = %info.id, "cannot end a program of an earlier agent");
            }
        }
    }
}

/// Stream of an exec, or the reason why none was opened.
pub(crate) type AttachResult = Result<(ExecAttached, ExecTail), ExecError>;

impl ExecutorState {
    /// Starts the program, and hands it to its own task.
    async fn run(
        self: Arc<Self>,
        slots: Arc<Semaphore>,
        (id, generation): (ExecId, u64),
        start: ExecStart,
        input: InputKind,
        afterwards: Retention,
    ) -> StartResult {
        let begun = match slots.try_acquire_owned() {
            Ok(slot) => self.begin((&id, generation), start, input, slot, afterwards).await,
            Err(_) => Err(ExecError::Busy),
        };
        begun.inspect_err(|_| self.registry.forget_start(&id, generation))
    }

    async fn begin(
        self: &Arc<Self>,
        (id, generation): (&ExecId, u64),
        start: ExecStart,
        input: InputKind,
        slot: OwnedSemaphorePermit,
        afterwards: Retention,
    ) -> Result<Arc<Exec>, ExecError> {
        let timeout = start.timeout_ms.map(Duration::from_millis);
        let grace = start.kill_grace_ms.map_or(KILL_GRACE, Duration::from_millis);
        let record = self.record(id, generation, &start);
        // Shared, not copied: arguments and environment can be a mebibyte.
        let start = Arc::new(start);
        let launched =
            launch(Arc::clone(&start), input, record, self.cgroups.clone(), self.defaults).await?;
        let LaunchedProgram { process, stdin, stdout, stderr } = launched;
        let exec = Arc::new(Exec::new(id.clone(), process.pid(), &start).of_generation(generation));
        let terminal = start.tty.is_some().then(|| stdout.clone());
        let pump = StreamPump::new(Arc::clone(&exec), stdin, stdout, stderr);
        let task = ProgramTask { exec: Arc::clone(&exec), process, pump, terminal, timeout, grace };
        self.started.fetch_add(1, Ordering::Relaxed);
        self.registry.running(&exec);
        let (shared, lived) = (Arc::clone(self), Arc::clone(&exec));
        crate::task::spawn(async move {
            task.run().await;
            match afterwards {
                Retention::Keep => shared.registry.ended(&lived),
                Retention::Forget => shared.registry.over(&lived),
            }
            drop(slot);
        });
        Ok(exec)
    }

    /// Returns the description of the program for the next agent.
    fn record(&self, id: &ExecId, generation: u64, start: &ExecStart) -> ProgramRecord {
        let ProgramSummary { command, args, user, tty } = ProgramSummary::of(start);
        ProgramRecord {
            id: id.clone(),
            command,
            args,
            user,
            tty,
            on_disconnect: start.on_disconnect,
            pid: 0,
            started_ms: boot_clock::now_ms(),
            generation,
            agent: self.owner,
        }
    }

    /// Returns a hash of the parts that must be equal in two requests with the same id: all but the time limits, the
    /// disconnect policy and the re-attach grace.
    ///
    /// Requests with equal hashes count as equal. The keys of the hash are random and known to this agent only, so no
    /// client can make two requests with the same hash; by chance, two requests have it with probability 2^-64.
    fn fingerprint(&self, start: &ExecStart) -> u64 {
        let ExecStart {
            id: _,
            on_disconnect: _,
            timeout_ms: _,
            kill_grace_ms: _,
            reattach_grace_ms: _,
            command,
            args,
            env,
            cwd,
            user,
            stdin,
            tty,
            rlimits,
            memory_bytes,
            pids,
        } = start;
        self.hasher.hash_one((
            command,
            args,
            env,
            cwd,
            user,
            stdin,
            tty,
            rlimits,
            memory_bytes,
            pids,
        ))
    }

    /// Returns a free id, of a form that clients are not expected to choose.
    fn mint(&self) -> ExecId {
        loop {
            let number = self.minted.fetch_add(1, Ordering::Relaxed);
            let id: ExecId = format!("agent-{}-{number}", std::process::id())
                .parse()
                .expect("letters, digits and dashes, far fewer than 64");
            // An earlier agent may have had the same process id.
            if self.registry.is_free(&id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests;
