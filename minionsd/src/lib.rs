//! The host daemon: discovers VMs, keeps connections to their agents, and serves them over REST.
//!
//! # Layout
//!
//! Each module imports only modules that are listed before it.
//!
//! * [`config`]: flags, environment and file, merged and checked before anything
//!   starts. [`logging`]: the log, which never blocks.
//! * `budget`, `descriptors`: limits for memory and file descriptors, and their division among VMs and clients.
//!   `metrics`: counters and histograms. `events`: the history of VM events.
//! * `agent`: the connection to one agent: connector, pool, client, stream.
//! * `clock`: clock offsets of guests, and their correction.
//! * `declared`: settings that VMs must have, and their addresses, in a database.
//! * `vm`: discovery, registry, and one supervisor task per VM that owns its state.
//! * `exec`: programs in guests: following, collecting, leaving.
//! * `files`: operations on files of guests. `forward`: connections to ports and sockets in guests.
//! * `reconcile`: applies these settings to VMs that become ready.
//! * `audit`: the audit log of operate calls.
//! * `api`: the route list that is both routing and OpenAPI document, and a file per resource.
//! * `tls`: TLS for the TCP listener. `server`: listeners, HTTP connections, and their drain.
//!
//! [`run`] is the whole daemon. It takes the future that stops it, so that a test controls its lifetime.

mod agent;
mod api;
mod audit;
mod budget;
mod clock;
pub mod config;
mod declared;
mod descriptors;
mod events;
mod exec;
mod files;
mod forward;
pub mod logging;
mod metrics;
mod reconcile;
mod server;
mod tls;
mod vm;

use api::auth::{Operators, Policy, Token};
use audit::AuditLog;
use budget::MemoryBudget;
use config::{Config, TcpOperate, TokenFile};
use declared::{DeclaredStore, StoreThread};
use descriptors::Descriptors;
use metrics::Meters;
use reconcile::{ReconcilerParts, VmConditions};
use server::{BindError, Listeners, ServedApp};
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
pub use declared::StoreOpenError;
pub use descriptors::raise_limit as raise_descriptor_limit;

/// Failure to start the daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener or TLS cannot be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The bearer token cannot be used.
    #[error("the bearer token in `token_file` cannot be used")]
    Token(#[from] TokenError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The database of the declared state cannot be used.
    #[error(transparent)]
    State(#[from] StoreOpenError),
}

/// Grace period for background tasks after the HTTP drain. A dial to a healthy VMM, the close of a WebSocket, and
/// the `leave` that is sent to an agent take at most 2 s each.
const TASKS_GRACE: Duration = Duration::from_secs(3);

/// A daemon with bound listeners that is not serving yet.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    policy: Policy,
    audit: AuditLog,
    declared: DeclaredStore,
    store: StoreThread,
    listeners: Listeners,
}

impl Daemon {
    /// Reads the token, opens the audit log and the database, and binds the configured listeners. Connections queue in the kernel
    /// until [`serve`](Self::serve) is called.
    ///
    /// # Errors
    ///
    /// [`StartError`], naming the address or path.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let policy = policy(&config)?;
        let audit = AuditLog::open(&config)?;
        let (declared, store) = DeclaredStore::open(config.state.as_deref())?;
        let listeners = Listeners::bind(&config).await?;
        Ok(Self { config, policy, audit, declared, store, listeners })
    }

    /// Returns the address of the TCP listener, if there is one. Its port is the one that the kernel chose if port 0 was
    /// configured.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.tcp_addr()
    }

    /// Serves until `shutdown` is ready, then stops in this order: new connections and requests are refused and
    /// WebSockets are closed; requests in progress finish within the grace period; VM tasks end; pools close.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let budget = MemoryBudget::default();
        let meters = Arc::new(Meters::default());
        let descriptors = Descriptors::of_process();
        let vm_deps = vm::SharedResources {
            descriptors: descriptors.clone(),
            budget: budget.clone(),
            meters: Arc::clone(&meters),
        };
        let trusted = vm::TrustedOwners::of(&self.config);
        let vm_settings = vm::VmSettings {
            pool_size: self.config.pool_size,
            clock_limit: self.config.clock_limit,
            restore: self.config.restore.clone(),
            declared: self.declared.clone(),
            reattach_grace: self.config.reattach_grace,
            agent_ports: self.config.agent_ports.clone(),
            samples: self.config.samples.clone(),
            announce: self.config.announce.then(|| trusted.clone()),
        };
        let socket_dir = self.config.socket_dir.clone();
        let registry =
            vm::Registry::start(socket_dir, trusted, vm_settings, vm_deps, &tasks, &stop);
        let conditions = VmConditions::default();
        let reconciler_parts = ReconcilerParts {
            registry: registry.clone(),
            store: self.declared.clone(),
            conditions: conditions.clone(),
            meters: Arc::clone(&meters),
        };
        let (reconciler, reconciling) = reconciler_parts.start(stop.clone());
        tasks.spawn(reconciling);
        let draining = CancellationToken::new();
        let execs = exec::ExecResources::new(
            tasks.clone(),
            draining.clone(),
            budget,
            descriptors.websockets,
        );
        tasks.spawn(self.audit.clone().write_refusals(stop.clone()));
        tasks.spawn(logging::report_dropped(stop.clone()));
        let parts = api::AppParts {
            registry,
            policy: self.policy,
            audit: self.audit,
            declared: self.declared,
            conditions,
            reconciler,
            execs,
            meters: Arc::clone(&meters),
        };
        let served = ServedApp {
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
            // VMs that neither answer nor refuse; waiting longer would not help.
            tracing::warn!(
                tasks = tasks.len(),
                "stopped before all dials and closing streams were complete"
            );
        }
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// Builds the configured rules for callers, and reads or creates the token.
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

/// Runs the daemon until `shutdown` is ready and all connections are drained.
///
/// # Errors
///
/// [`StartError`]; nothing has been served then.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    Daemon::bind(config).await?.serve(shutdown).await;
    Ok(())
}
