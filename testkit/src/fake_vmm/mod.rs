//! A fake VMM: a hybrid-vsock socket that is served by the real agent's library, or that shows any of the
//! faults that real VMMs have shown.
//!
//! The agent runs its programs on this machine, as this user; it does not have the capability to change the
//! network.

mod behaviour;
mod boot;
mod guest;
mod handshakes;
mod ledger;
mod process;

pub use behaviour::Behaviour;
pub use boot::Boot;
pub use guest::{BreachCounts, Dialect, Guest, Manner, SampleReply};
pub use handshakes::HandshakeCounter;
pub use ledger::{Ledger, OrderRuns};
pub use minions_agent::Capability;

use minions_agent::{Agent, AgentConfig, Capabilities, StartError};
use minions_proto::AgentPort;
use minions_proto::handshake::{MAX_LINE_LEN, parse_connect};
use process::ListenerProcess;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Deadline for the CONNECT line of a client.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Running fake. Dropping it closes its socket and all connections, and removes the socket file.
#[derive(Debug)]
pub struct FakeVmm {
    path: PathBuf,
    behaviour: watch::Sender<Behaviour>,
    counters: Arc<VmmCounters>,
    /// Port of the agent.
    port: AgentPort,
    task: JoinHandle<()>,
    /// Process that called `listen(2)`, if not this one.
    process: Option<ListenerProcess>,
    leaves_its_file: bool,
}

#[derive(Debug, Default)]
struct VmmCounters {
    accepted: AtomicUsize,
    half_connects: AtomicUsize,
}

/// Creates the agent's library for a fake VMM, without the capabilities that would change this machine: network,
/// clock and power.
///
/// # Errors
///
/// [`StartError`] if `/proc` is not available.
pub fn agent() -> Result<Agent, StartError> {
    agent_allowing([
        Capability::Health,
        Capability::Status,
        Capability::Exec,
        Capability::WriteFile,
    ])
}

/// Creates the agent's library, which can also connect to ports and sockets of this machine.
///
/// # Errors
///
/// [`StartError`] if `/proc` is not available.
pub fn forwarding_agent() -> Result<Agent, StartError> {
    agent_allowing([Capability::Health, Capability::Exec, Capability::Forward])
}

/// Creates the agent's library with these capabilities only.
///
/// # Errors
///
/// [`StartError`] if `/proc` is not available.
pub fn agent_allowing(
    operations: impl IntoIterator<Item = Capability>,
) -> Result<Agent, StartError> {
    Agent::new(AgentConfig {
        capabilities: Capabilities::from_iter(operations),
        ..AgentConfig::default()
    })
}

impl FakeVmm {
    /// Listens on `<dir>/<name>.vsock`.
    ///
    /// # Errors
    ///
    /// The socket cannot be bound: the path exists, or is too long.
    pub fn start(dir: &Path, name: &str, behaviour: Behaviour) -> io::Result<Self> {
        Self::start_on_port(dir, name, AgentPort::DEFAULT, behaviour)
    }

    /// Like [`start`](Self::start), with a guest that listens on this port only.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start).
    pub fn start_on_port(
        dir: &Path,
        name: &str,
        port: AgentPort,
        behaviour: Behaviour,
    ) -> io::Result<Self> {
        let path = dir.join(format!("{name}.vsock"));
        let listener = UnixListener::bind(&path)?;
        Ok(Self::serve(path, listener, port, behaviour, None))
    }

    /// Starts a VMM with a process of its own, of this name. The process ends with [`crash`](Self::crash) and with this
    /// value.
    ///
    /// # Errors
    ///
    /// The socket's; `perl` is missing.
    pub fn start_as(
        dir: &Path,
        name: &str,
        behaviour: Behaviour,
        process_name: &str,
    ) -> io::Result<Self> {
        let path = dir.join(format!("{name}.vsock"));
        let (process, listener) = ListenerProcess::start(&path, process_name)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self::serve(path, listener, AgentPort::DEFAULT, behaviour, Some(process)))
    }

    fn serve(
        path: PathBuf,
        listener: UnixListener,
        port: AgentPort,
        behaviour: Behaviour,
        process: Option<ListenerProcess>,
    ) -> Self {
        let (behaviour, behaves) = watch::channel(behaviour);
        let counters = Arc::new(VmmCounters::default());
        let task = tokio::spawn(serve(listener, port, behaves, Arc::clone(&counters)));
        Self { path, port, behaviour, counters, task, process, leaves_its_file: false }
    }

    /// Renames the socket to `path`, in one step.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn rename_socket(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// Removes the socket and closes all connections, as Cloud Hypervisor at a reboot of its guest. The process
    /// lives.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub async fn remove_socket(&mut self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.task.abort();
        // When it has ended, its listener and its connections are closed.
        let _ = (&mut self.task).await;
        Ok(())
    }

    /// Creates the socket again after [`remove_socket`](Self::remove_socket). This process listens; a process that
    /// the VMM had ends.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn create_socket(&mut self, behaviour: Behaviour) -> io::Result<()> {
        let listener = UnixListener::bind(&self.path)?;
        self.behaviour.send_replace(behaviour);
        let (behaves, counters) = (self.behaviour.subscribe(), Arc::clone(&self.counters));
        self.task = tokio::spawn(serve(listener, self.port, behaves, counters));
        self.process = None;
        Ok(())
    }

    /// Reports whether the VMM has a process of its own.
    #[must_use]
    pub fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// Returns the pid of the process that listens.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or_else(std::process::id, ListenerProcess::pid)
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the behaviour. Open connections are closed.
    pub fn switch_to(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }

    /// Breaks all connections, as a VMM or its guest may at any moment. New connections are accepted.
    pub fn cut(&self) {
        self.behaviour.send_modify(|_| {});
    }

    /// Returns the number of connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counters.accepted.load(Ordering::SeqCst)
    }

    /// Returns the number of clients that left in the middle of their CONNECT line, which crashes some VMMs,
    /// or that sent it in pieces or with further bytes after it, which no VMM understands.
    #[must_use]
    pub fn half_connects(&self) -> usize {
        self.counters.half_connects.load(Ordering::SeqCst)
    }

    /// Ends like a killed VMM: connections break, the socket file remains.
    pub fn crash(mut self) {
        self.leaves_its_file = true;
        self.process = None;
    }
}

impl Drop for FakeVmm {
    fn drop(&mut self) {
        self.task.abort();
        if !self.leaves_its_file {
            // The file is already gone if a test removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn serve(
    listener: UnixListener,
    open: AgentPort,
    mut behaves: watch::Receiver<Behaviour>,
    counters: Arc<VmmCounters>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                counters.accepted.fetch_add(1, Ordering::SeqCst);
                let behaviour = behaves.borrow().clone();
                connections.spawn(connection(stream, open, behaviour, Arc::clone(&counters)));
            }
            changed = behaves.changed() => {
                if changed.is_err() { return }
                connections.abort_all();
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn connection(
    mut stream: UnixStream,
    open: AgentPort,
    behaviour: Behaviour,
    counters: Arc<VmmCounters>,
) {
    // Reads once, as real VMMs do: further bytes of the line are lost.
    let mut line = [0; MAX_LINE_LEN];
    let read = timeout(CONNECT_DEADLINE, stream.read(&mut line)).await;
    let Some(line) = read.ok().and_then(|read| line.get(..read.ok()?)) else { return };
    match line.strip_suffix(b"\n").map(parse_connect) {
        Some(Ok(port)) if port == open.get() => behaviour.serve(stream, port).await,
        // Refused by closing, without a line.
        Some(Ok(_)) => {}
        // A connection without any bytes is harmless: a scan, or a test that leaves.
        None if line.is_empty() => {}
        None | Some(Err(_)) => {
            counters.half_connects.fetch_add(1, Ordering::SeqCst);
        }
    }
}
