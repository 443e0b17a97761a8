//! The host daemon: finds VMs, keeps connections to their agents, serves them as REST.
//!
//! # Layout
//!
//! * [`config`]: flags, environment and file, merged and checked before anything starts.
//! * `vm`: discovery, registry, and one supervisor task per VM that owns its state. `vm_pattern`: patterns of names.
//! * `agent`: the way to one agent: connector, pool, client, stream.
//! * `audit`: who called what. `logging`: the log, which never blocks.
//! * `events`: what happens to VMs. `metrics`: what is counted.
//! * `budget`, `descriptors`: memory and descriptors, and who may have how much of them.
//! * `exec`: programs in guests: followed, collected, left.
//! * `api`: the route list that is both routing and OpenAPI document, and a file per resource.
//! * `server`: listeners, HTTP connections, and their drain. `tls`: for the TCP listener.
//!
//! [`run`] is the whole daemon; it takes the future that ends it, so that a test owns its life.

mod agent;
mod api;
mod audit;
mod budget;
mod clock;
pub mod config;
mod descriptors;
mod events;
mod exec;
pub mod logging;
mod metrics;
mod server;
mod tls;
mod vm;
mod vm_pattern;

use api::auth::{Operators, Policy, Token};
use audit::Audit;
use budget::Budget;
use config::{Config, TcpOperate, TokenFile};
use descriptors::Descriptors;
use metrics::Meters;
use server::{BindError, Listeners, Served};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[cfg(feature = "bench")]
pub use agent::benching;
pub use api::auth::TokenError;
#[cfg(fuzzing)]
pub use api::fuzzing;
pub use api::openapi_json;
pub use audit::AuditError;
pub use descriptors::raise_limit as raise_descriptor_limit;

/// Why the daemon can't run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener can't be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The bearer token can't be used.
    #[error("`token_file` can't be used")]
    Token(#[from] TokenError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// A dial takes at most 2 s with a VMM that is well, as do WebSockets to be closed and farewells to be
/// said.
const TASKS_GRACE: Duration = Duration::from_secs(3);

/// A daemon that has its listeners and is not serving yet.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    policy: Policy,
    audit: Audit,
    listeners: Listeners,
}

impl Daemon {
    /// Takes the listeners that `config` asks for. Requests that come from now on wait until
    /// [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// [`StartError`], naming the address or path.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let policy = policy(&config)?;
        let audit = Audit::open(&config)?;
        let listeners = Listeners::bind(&config).await?;
        Ok(Self { config, policy, audit, listeners })
    }

    /// The TCP address that was really taken, if there is one.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.tcp_addr()
    }

    /// Serves until `shutdown` is ready, then stops in this order: no new connections and no new
    /// requests, and WebSockets close; requests under way finish, within the grace period; VM tasks
    /// end; pools close.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (budget, meters) = (Budget::default(), Arc::new(Meters::default()));
        let descriptors = Descriptors::of_process();
        let means = vm::Means {
            descriptors: descriptors.clone(),
            budget: budget.clone(),
            meters: Arc::clone(&meters),
        };
        let each = vm::Each {
            pool_size: self.config.pool_size,
            clock_limit: self.config.clock_limit,
            agent_ports: self.config.agent_ports.clone(),
        };
        let socket_dir = self.config.socket_dir.clone();
        let trusted = vm::Trusted::of(&self.config);
        let registry = vm::Registry::start(socket_dir, trusted, each, means, &tasks, &stop);
        let draining = CancellationToken::new();
        let execs =
            exec::Execs::new(tasks.clone(), draining.clone(), budget, descriptors.websockets);
        tasks.spawn(self.audit.clone().write_refusals(stop.clone()));
        tasks.spawn(logging::report_dropped(stop.clone()));
        let parts = api::Parts {
            registry,
            policy: self.policy,
            audit: self.audit,
            execs,
            meters: Arc::clone(&meters),
        };
        let served = Served {
            app: api::app(&self.config, parts),
            shed: api::shed(Arc::clone(&meters)),
            clients: descriptors.clients,
            grace: self.config.shutdown_grace,
            meters,
        };
        self.listeners.serve(served, shutdown, draining).await;
        stop.cancel();
        tasks.close();
        if timeout(TASKS_GRACE, tasks.wait()).await.is_err() {
            // VMs that neither answer nor refuse: there is no better moment to leave them.
            tracing::warn!(tasks = tasks.len(), "left in the middle of a handshake or a farewell");
        }
        tracing::info!("stopped");
    }
}

/// The configured rules for callers.
fn policy(config: &Config) -> Result<Policy, TokenError> {
    let group = &config.operator_group;
    let token = match &config.token_file {
        None => None,
        Some(TokenFile::Existing(path)) => Some(Token::read(path, group)?),
        Some(TokenFile::Created(path)) => Some(Token::read_or_create(path, group)?),
    };
    if config.tcp_operate == TcpOperate::Uid {
        tracing::warn!("{}", api::auth::UID_WARNING);
    }
    Ok(Policy {
        operators: Arc::new(Operators::new(group.clone())),
        token,
        tcp_read: config.tcp_read,
        tcp_operate: config.tcp_operate,
        unix_socket: config.unix_socket.clone(),
        token_file: config.token_file.as_ref().map(|file| file.path().to_owned()),
    })
}

/// Runs the daemon until `shutdown` is ready and everything has been drained.
///
/// # Errors
///
/// [`StartError`], before anything was started.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    Daemon::bind(config).await?.serve(shutdown).await;
    Ok(())
}
