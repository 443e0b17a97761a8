//! Running programs.
//!
//! ```text
//!  start ─▶ registry ─▶ launch ─▶ Exec ◀──────────── attach ── Tail ─▶ a stream, or the base reply
//!            one an id             │  ring of stdout, ring of stderr, input
//!                                  │
//!                                 Life: one task a program
//!                                  ├─ Pump: pipes or terminal ⇄ rings and input
//!                                  └─ Process: own session, own cgroup; time is up, or nobody wants
//!                                     it any more: TERM, grace, KILL to the whole tree
//! ```
//!
//! An exec is an object: it outlives the connection that started it, and its id is the way back to
//! it. The base `exec` request is one that is attached to, collected and forgotten.
//!
//! A program ends when *it* ends, not when the last holder of its pipes does: `sh -c 'sleep 300 &'`
//! is over at once, and the sleep lives on. What such a left-over writes after the drain meets a
//! closed pipe. It stays listed, and so do programs that outlive their agent ([`lost`]): nothing that
//! an exec started runs unseen.

mod agent_variables;
mod collect;
mod fit;
mod input;
mod json_text;
mod launch;
mod life;
mod listing;
mod lookup;
mod lost;
mod object;
mod pipe;
mod process;
mod pump;
mod registry;
mod ring;
mod shown;
mod tail;
mod user;

pub(crate) use object::{Exec, ExecRefusal};
pub use process::ProgramGroups;
pub(crate) use process::signal::of as raw_signal;
pub(crate) use tail::{Handle, Piece, Tail};

use crate::protection::ProgramDefaults;
use launch::{Launched, launch};
use life::Life;
use minions_proto::Invalid;
use minions_proto::frame::EncodeError;
use minions_proto::message::{
    ExecAttach, ExecAttached, ExecId, ExecInfo, ExecInspect, ExecListed, ExecSignal, ExecStart,
    MAX_TIMEOUT_MS, OnDisconnect, Role,
};
use process::{Cgroups, Owner, Record};
use pump::Pump;
use registry::{Begun, Found, Registry};
use shown::{Shown, boot_ms};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Programs at once. Each may hold 1 MiB of output.
const MAX_RUNNING: usize = 64;

/// Between TERM and KILL, for requests that don't say. Short enough that `timeout 1s` is over within
/// two, long enough to write a file and go.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// Longest time that `exec_remove` waits for the end: a grace of a minute, and the end of what is killed. Only a
/// process that waits in the kernel takes longer.
const REMOVAL: Duration = Duration::from_secs(90);
/// For what was left running to be gone once it is killed.
const LEFT: Duration = Duration::from_secs(5);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{MAX_RUNNING} programs are running already; try again later")]
    Busy,
    #[error("{command:?} not found")]
    NotFound { command: String },
    #[error("{path:?} can't be executed")]
    NotExecutable { path: String, source: io::Error },
    #[error("{path:?} is there, but what it needs to run is not: {missing}")]
    NoInterpreter { path: String, missing: String, source: io::Error },
    #[error("{path:?} can't be started")]
    Start { path: String, source: io::Error },
    #[error(transparent)]
    User(#[from] user::UserError),
    #[error("the agent can't become user {user:?}")]
    CantBecome { user: String, source: io::Error },
    #[error("the working directory {path:?} can't be entered")]
    Cwd { path: String, source: io::Error },
    #[error("the resource limits can't be set")]
    Limits(#[source] io::Error),
    #[error("arguments and environment are longer than the kernel takes")]
    TooLong(#[source] io::Error),
    #[error("a path, an argument or a variable contains a NUL byte")]
    Nul,
    #[error("the program's standard streams can't be made")]
    Streams(#[source] io::Error),
    #[error("the program can't be watched")]
    Wait(#[source] io::Error),
    #[error("no exec has the id {0}: it never was, or it ended and was dropped")]
    Gone(ExecId),
    #[error("the exec {0} was told to end and has not ended within {secs} s: its process waits in the kernel or is \
             frozen; it keeps its id and its place among the {MAX_RUNNING} programs", secs = REMOVAL.as_secs())]
    NotEnded(ExecId),
    #[error("another command has this id")]
    Conflict,
    #[error(transparent)]
    Refused(#[from] ExecRefusal),
    #[error("the program's end was lost: {0}")]
    Lost(String),
    #[error("the agent is shutting down")]
    Interrupted,
    #[error("result can't be encoded")]
    Encode(#[from] EncodeError),
}

impl ExecError {
    /// The kernel's error number, if it was the kernel that said no.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::NotExecutable { source, .. }
            | Self::NoInterpreter { source, .. }
            | Self::Start { source, .. }
            | Self::CantBecome { source, .. }
            | Self::Cwd { source, .. }
            | Self::Limits(source)
            | Self::TooLong(source)
            | Self::Streams(source)
            | Self::Wait(source) => source.raw_os_error(),
            Self::NotFound { .. } => Some(rustix::io::Errno::NOENT.raw_os_error()),
            Self::Invalid(_)
            | Self::Busy
            | Self::Nul
            | Self::User(_)
            | Self::Gone(_)
            | Self::NotEnded(_)
            | Self::Conflict
            | Self::Refused(_)
            | Self::Lost(_)
            | Self::Interrupted
            | Self::Encode(_) => None,
        }
    }
}

/// Runs programs, so many at a time.
#[derive(Debug)]
pub(crate) struct Executor {
    shared: Arc<Shared>,
    default_timeout: Duration,
    /// For execs that name no user.
    default_user: Option<String>,
}

#[derive(Debug)]
struct Shared {
    slots: Arc<Semaphore>,
    registry: Registry,
    cgroups: Cgroups,
    owner: Owner,
    defaults: ProgramDefaults,
    minted: AtomicU64,
}

/// Whether an exec can be asked for after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Afterwards {
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
        let (registry, cgroups) = (Registry::default(), Cgroups::find(groups));
        lost::adopt(&registry, &cgroups);
        Self {
            shared: Arc::new(Shared {
                slots: Arc::new(Semaphore::new(MAX_RUNNING)),
                registry,
                cgroups,
                owner: Owner::this(),
                defaults,
                minted: AtomicU64::new(0),
            }),
            default_timeout: default_timeout.min(Duration::from_millis(MAX_TIMEOUT_MS)),
            default_user,
        }
    }

    /// Starts a program and attaches to it; or only attaches, if its id is there already.
    ///
    /// Dropping the future lets the start finish; nobody is attached then, and its reattach grace
    /// runs.
    pub(crate) async fn start(&self, start: ExecStart) -> Begin {
        self.begin(start, Afterwards::Keep).await
    }

    async fn begin(&self, mut start: ExecStart, afterwards: Afterwards) -> Begin {
        start.user = start.user.or_else(|| self.default_user.clone());
        let validated = start.validate().map_err(ExecError::from);
        validated.map_err(Arc::new)?;
        let id = start.id.get_or_insert_with(|| self.shared.mint()).clone();
        let fingerprint = fingerprint(&start);
        let found = self.shared.registry.find_or_begin(&id, fingerprint).map_err(Arc::new)?;
        let (exec, created) = match found {
            Found::Known(known) => (known.begun().await?, false),
            Found::New(tell) => {
                let mut told = tell.subscribe();
                let shared = Arc::clone(&self.shared);
                tokio::spawn(async move {
                    let begun = shared.run(id, start, afterwards).await;
                    // Whoever asked may have gone.
                    tell.send_replace(Some(begun));
                });
                let begun = told.wait_for(Option::is_some).await.map(|begun| begun.clone());
                let begun = begun.ok().flatten();
                (begun.unwrap_or_else(|| Err(Arc::new(ExecError::Interrupted)))?, true)
            }
        };
        let attached = exec.attach(Role::Control, None, None, created);
        attached.map_err(|refusal| Arc::new(refusal.into()))
    }

    /// Comes back to an exec.
    pub(crate) async fn attach(&self, attach: ExecAttach) -> Begin {
        let ExecAttach { id, stdout, stderr, role } = attach;
        let exec = self.shared.registry.find(&id).map_err(Arc::new)?.begun().await?;
        exec.attach(role, stdout, stderr, false).map_err(|refusal| Arc::new(refusal.into()))
    }

    pub(crate) fn list(&self) -> ExecListed {
        listing::listed(self.shared.registry.all().iter().map(|exec| exec.info()).collect())
    }

    /// Dropping the future changes nothing.
    pub(crate) async fn inspect(&self, inspect: ExecInspect) -> Result<ExecInfo, Arc<ExecError>> {
        let known = self.shared.registry.find(&inspect.id).map_err(Arc::new)?;
        let exec = known.begun().await?;
        if let Some(wait_ms) = inspect.wait_ms {
            exec.ended_within(Duration::from_millis(wait_ms.min(MAX_TIMEOUT_MS))).await;
        }
        Ok(exec.info())
    }

    pub(crate) async fn signal(&self, signal: ExecSignal) -> Result<(), Arc<ExecError>> {
        let known = self.shared.registry.find(&signal.id).map_err(Arc::new)?;
        let signalled = known.begun().await?.signal(signal.signal);
        signalled.map_err(|refusal| Arc::new(refusal.into()))
    }

    /// Ends an exec with everything that it started, and forgets it. One that does not end keeps its id and its slot.
    pub(crate) async fn remove(&self, id: &ExecId) -> Result<ExecInfo, Arc<ExecError>> {
        let exec = self.shared.registry.find(id).map_err(Arc::new)?.begun().await?;
        exec.end();
        if !exec.ended_within(REMOVAL).await {
            return Err(Arc::new(ExecError::NotEnded(id.clone())));
        }
        exec.left_within(LEFT).await;
        let info = exec.info();
        // Left-over processes that heed no kill (they wait for a dead disk) keep it listed.
        if info.left_running.is_none() {
            self.shared.registry.forget(&exec);
        }
        Ok(info)
    }
}

/// An exec's stream, or why there is none.
pub(crate) type Begin = Result<(ExecAttached, Tail), Arc<ExecError>>;

impl Shared {
    /// Starts the program, and leaves it to a task of its own.
    async fn run(self: Arc<Self>, id: ExecId, start: ExecStart, afterwards: Afterwards) -> Begun {
        let begun = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => self.begin(&id, start, slot, afterwards).await,
            Err(_) => Err(ExecError::Busy),
        };
        begun.map_err(|error| {
            self.registry.forget_start(&id);
            Arc::new(error)
        })
    }

    async fn begin(
        self: &Arc<Self>,
        id: &ExecId,
        start: ExecStart,
        slot: OwnedSemaphorePermit,
        afterwards: Afterwards,
    ) -> Result<Arc<Exec>, ExecError> {
        let timeout = start.timeout_ms.map(Duration::from_millis);
        let grace = start.kill_grace_ms.map_or(KILL_GRACE, Duration::from_millis);
        let shown = start.clone();
        let record = self.record(id, &start);
        let launched = launch(start, record, self.cgroups.clone(), self.defaults).await?;
        let Launched { process, stdin, stdout, stderr } = launched;
        let exec = Arc::new(Exec::new(id.clone(), process.pid(), &shown));
        let terminal = shown.tty.is_some().then(|| stdout.clone());
        let pump = Pump::new(Arc::clone(&exec), stdin, stdout, stderr);
        let life = Life { exec: Arc::clone(&exec), process, pump, terminal, timeout, grace };
        self.registry.running(&exec);
        let (shared, lived) = (Arc::clone(self), Arc::clone(&exec));
        tokio::spawn(async move {
            life.run().await;
            match afterwards {
                Afterwards::Keep => shared.registry.ended(&lived),
                Afterwards::Forget => shared.registry.over(&lived),
            }
            drop(slot);
        });
        Ok(exec)
    }

    /// For the next agent.
    fn record(&self, id: &ExecId, start: &ExecStart) -> Record {
        let Shown { command, args, user, tty } = Shown::of(start);
        let (on_disconnect, started_ms) = (start.on_disconnect, boot_ms());
        let (id, agent, pid) = (id.clone(), self.owner, 0);
        Record { id, command, args, user, tty, on_disconnect, pid, started_ms, agent }
    }

    /// An id that no client would choose: clients' own are theirs.
    fn mint(&self) -> ExecId {
        loop {
            let number = self.minted.fetch_add(1, Ordering::Relaxed);
            let id: ExecId = format!("agent-{}-{number}", std::process::id())
                .parse()
                .expect("letters, digits and dashes, far fewer than 64");
            // An earlier agent may have had the same process number.
            if self.registry.is_free(&id) {
                return id;
            }
        }
    }
}

/// What makes two requests the same: what runs, and not for how long or for whom.
fn fingerprint(start: &ExecStart) -> u64 {
    let what = ExecStart {
        timeout_ms: None,
        kill_grace_ms: None,
        on_disconnect: OnDisconnect::default(),
        ..start.clone()
    };
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_exec_that_does_not_end_is_not_removed() {
        let groups = ProgramGroups::Below(format!("minions-test-{}", std::process::id()));
        let executor =
            Executor::new(Duration::from_secs(1), None, ProgramDefaults::default(), groups);
        let id: ExecId = "frozen".parse().unwrap();
        let registry = &executor.shared.registry;
        assert!(matches!(registry.find_or_begin(&id, 0), Ok(Found::New(_))));
        // No task looks after it, as if its process never ended.
        let exec = Arc::new(Exec::new(id.clone(), 1, &ExecStart::default()));
        registry.running(&exec);

        let error = executor.remove(&id).await.unwrap_err();
        assert!(matches!(&*error, ExecError::NotEnded(which) if *which == id), "{error:?}");
        let info = executor.inspect(ExecInspect { id: id.clone(), wait_ms: None }).await.unwrap();
        assert_eq!(info.outcome, None);
        assert!(matches!(registry.find_or_begin(&id, 1), Err(ExecError::Conflict)));

        // Once it has ended, it can be removed.
        let ended = minions_proto::channel::Ended {
            outcome: minions_proto::message::Outcome::Exited { code: 0 },
            usage: minions_proto::message::Usage::default(),
        };
        exec.finish(ended, None);
        executor.remove(&id).await.unwrap();
        assert!(matches!(&*executor.remove(&id).await.unwrap_err(), ExecError::Gone(_)));
    }
}
