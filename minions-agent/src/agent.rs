//! What all connections of one agent share.

use crate::capability::{Capabilities, Capability};
use crate::exec::{Executor, ProgramGroups};
use crate::identity::{Identity, IdentityError};
use crate::net::Network;
use crate::ops::report_status::Vitals;
use crate::protection::ProgramDefaults;
use crate::session;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

/// Connections served at once. A host pools a handful; a VMM allows 1023.
pub const MAX_CONNECTIONS: usize = 256;

/// How long an exec may take that doesn't say.
pub const DEFAULT_EXEC_TIMEOUT: Duration = Duration::from_mins(10);

/// What an agent is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Requests that are answered; others are refused with `forbidden`.
    pub capabilities: Capabilities,
    /// For execs that give no time limit of their own.
    pub exec_timeout: Duration,
    /// `USER` or `USER:GROUP` for execs that name none. `None`: the agent's own.
    pub exec_user: Option<String>,
    /// What a network configuration with name servers replaces, where no service has them.
    pub resolv_conf: PathBuf,
    /// Where things lie until the next boot: `/run`.
    pub run_dir: PathBuf,
    /// What programs are started with instead of the agent's own priority.
    pub programs: ProgramDefaults,
    /// Where the control groups of programs are made.
    pub groups: ProgramGroups,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capabilities: Capabilities::without_the_machine(),
            exec_timeout: DEFAULT_EXEC_TIMEOUT,
            exec_user: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            run_dir: PathBuf::from("/run"),
            programs: ProgramDefaults::default(),
            groups: ProgramGroups::Below(format!("minions-{}", std::process::id())),
        }
    }
}

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It can't say who it is.
    #[error("no identity")]
    Identity(#[from] IdentityError),
}

/// One agent. Clones are the same agent.
#[derive(Debug, Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    capabilities: Capabilities,
    identity: Identity,
    connections: Semaphore,
    executor: Executor,
    network: Network,
    vitals: Vitals,
}

impl Agent {
    /// Starts an agent: from here on it samples the CPU in the background, until the last clone is
    /// gone.
    ///
    /// # Errors
    ///
    /// [`StartError`] if `/proc` isn't there.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(config: Config) -> Result<Self, StartError> {
        let shared = Shared {
            capabilities: config.capabilities,
            identity: Identity::mint()?,
            connections: Semaphore::new(MAX_CONNECTIONS),
            executor: Executor::new(
                config.exec_timeout,
                config.exec_user,
                config.programs,
                config.groups,
            ),
            network: Network::new(
                config.resolv_conf,
                &config.run_dir,
                config.capabilities.contain(Capability::Network),
            ),
            vitals: Vitals::start(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves one host connection until it ends. `stream` is right behind its handshake: its next
    /// byte is the first frame's.
    ///
    /// Dropping the future closes the connection; a program that it was running is killed with its
    /// process group, while a network configuration or a file that has been started is finished.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        match self.shared.connections.try_acquire() {
            Ok(_slot) => session::run(self, stream).await,
            Err(_) => session::turn_away(stream).await,
        }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.shared.executor
    }

    pub(crate) fn network(&self) -> &Network {
        &self.shared.network
    }

    pub(crate) fn vitals(&self) -> &Vitals {
        &self.shared.vitals
    }
}
