//! State shared by all connections of one agent.

use crate::capability::{Capabilities, Capability};
use crate::exec::{Executor, ProgramGroups};
use crate::forward::ForwardDialer;
use crate::forward::policy::ForwardPolicy;
use crate::generation::GenerationTracker;
use crate::host_stream::BoxedStream;
use crate::identity::{AgentIdentity, IdentityError};
use crate::net::NetworkConfigurator;
use crate::ops::report_status::StatusSource;
use crate::protection::ProgramDefaults;
use crate::quiesce::{QuiesceControl, QuiesceSettings};
use crate::session;
use minions_proto::AgentPort;
use minions_proto::announcement::Announcement;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

/// Connections served at once. A host pools a handful; a VMM allows 1023.
pub const MAX_CONNECTIONS: usize = 256;

/// Time limit of an exec whose request has none.
pub const DEFAULT_EXEC_TIMEOUT: Duration = Duration::from_mins(10);

/// Path of the program that serves operations on files: the agent itself, even if its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Settings of an agent.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Requests that are answered; others are refused with `forbidden`.
    pub capabilities: Capabilities,
    /// Time limit of execs whose request has none.
    pub exec_timeout: Duration,
    /// `USER` or `USER:GROUP` for execs whose request names no user. `None`: the agent's own user.
    pub exec_user: Option<String>,
    /// File that receives the name servers of a network configuration if no service manages them:
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Directory for state that lasts until the next boot: `/run`.
    pub run_dir: PathBuf,
    /// Directory with the files that restore steps change: `/etc`.
    pub etc_dir: PathBuf,
    /// File in which D-Bus may keep a copy of the machine id: `/var/lib/dbus/machine-id`.
    pub dbus_machine_id: PathBuf,
    /// Priority of programs, instead of the agent's own.
    pub programs: ProgramDefaults,
    /// Location of the control groups of programs.
    pub groups: ProgramGroups,
    /// Directory with the directories of hooks, `freeze.d`, `thaw.d` and `restore.d`.
    pub hook_dir: PathBuf,
    /// True if a quiesce may freeze the file systems: the machine is a guest.
    pub freezes_file_systems: bool,
    /// Program that serves operations on files, and keeps file systems frozen: `minions-agent`. The default, `/proc/self/exe`, is right in that
    /// program only; a program that uses this library must set it.
    pub file_program: PathBuf,
    /// Targets and listening addresses of forwards beyond loopback addresses and Unix sockets.
    pub forward: ForwardPolicy,
}

impl Default for AgentConfig {
    /// Each configuration has a group of its own for programs: it also stores the guest's generation.
    fn default() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self {
            capabilities: Capabilities::without_the_machine(),
            exec_timeout: DEFAULT_EXEC_TIMEOUT,
            exec_user: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            run_dir: PathBuf::from("/run"),
            etc_dir: PathBuf::from("/etc"),
            dbus_machine_id: PathBuf::from("/var/lib/dbus/machine-id"),
            programs: ProgramDefaults::default(),
            groups: ProgramGroups::Below(format!("minions-{}-{number}", std::process::id())),
            hook_dir: PathBuf::from("/etc/minions"),
            freezes_file_systems: false,
            file_program: PathBuf::from(OWN_PROGRAM),
            forward: ForwardPolicy::default(),
        }
    }
}

/// Reason why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The boot id or the instance id is unavailable.
    #[error("failed to determine the boot id and instance id")]
    Identity(#[from] IdentityError),
}

/// Handle of an agent. Clones refer to the same agent.
#[derive(Debug, Clone)]
pub struct Agent {
    shared: Arc<AgentState>,
}

#[derive(Debug)]
struct AgentState {
    capabilities: Capabilities,
    generations: GenerationTracker,
    etc_dir: PathBuf,
    dbus_machine_id: PathBuf,
    hook_dir: PathBuf,
    connections: Semaphore,
    executor: Executor,
    network: NetworkConfigurator,
    status: StatusSource,
    file_program: PathBuf,
    forward: ForwardDialer,
    quiescer: QuiesceControl,
}

impl Agent {
    /// Starts an agent. It samples the CPU in the background until the last clone is dropped.
    ///
    /// # Errors
    ///
    /// [`StartError`] if `/proc` is not mounted.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn new(config: AgentConfig) -> Result<Self, StartError> {
        let identity = AgentIdentity::mint()?;
        let executor =
            Executor::new(config.exec_timeout, config.exec_user, config.programs, config.groups);
        let quiesce = QuiesceSettings {
            hook_dir: config.hook_dir.clone(),
            run_dir: config.run_dir.clone(),
            program: config.file_program.clone(),
            freezes: config.freezes_file_systems,
        };
        let shared = AgentState {
            capabilities: config.capabilities,
            generations: GenerationTracker::new(identity, executor.generation()),
            etc_dir: config.etc_dir,
            dbus_machine_id: config.dbus_machine_id,
            hook_dir: config.hook_dir,
            connections: Semaphore::new(MAX_CONNECTIONS),
            quiescer: QuiesceControl::new(quiesce, executor.clone()),
            executor,
            network: NetworkConfigurator::new(
                config.resolv_conf,
                &config.run_dir,
                config.capabilities.contain(Capability::Network),
            ),
            status: StatusSource::start(),
            file_program: config.file_program,
            forward: ForwardDialer::new(config.forward, config.run_dir),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves one host connection until it ends. The handshake on `stream` must be complete: the next
    /// byte is the first byte of the first frame.
    ///
    /// Dropping the future closes the connection. It kills a program of a base `exec` with its process
    /// group; a network change or a file write that has begun is completed.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.serve_boxed(Box::new(stream)).await;
        #[cfg(target_env = "gnu")]
        crate::heap::connection_ended();
    }

    async fn serve_boxed(&self, stream: BoxedStream<'_>) {
        match self.shared.connections.try_acquire() {
            Ok(slot) => session::run(self, stream, slot).await,
            Err(_) => session::turn_away(stream).await,
        }
    }

    /// Returns the announcement of this agent, which listens on this port.
    #[must_use]
    pub fn announcement(&self, port: AgentPort) -> Announcement {
        self.shared.generations.announcement(port)
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    pub(crate) fn generations(&self) -> &GenerationTracker {
        &self.shared.generations
    }

    pub(crate) fn etc_dir(&self) -> &Path {
        &self.shared.etc_dir
    }

    pub(crate) fn dbus_machine_id(&self) -> &Path {
        &self.shared.dbus_machine_id
    }

    pub(crate) fn hook_dir(&self) -> &Path {
        &self.shared.hook_dir
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.shared.executor
    }

    pub(crate) fn network(&self) -> &NetworkConfigurator {
        &self.shared.network
    }

    pub(crate) fn file_program(&self) -> &Path {
        &self.shared.file_program
    }

    pub(crate) fn forward(&self) -> &ForwardDialer {
        &self.shared.forward
    }

    pub(crate) fn quiescer(&self) -> &QuiesceControl {
        &self.shared.quiescer
    }

    pub(crate) fn status(&self) -> &StatusSource {
        &self.shared.status
    }
}
