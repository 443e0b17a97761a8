//! Listening sockets in the guest for one SSH connection (`ssh -R`, `ssh -A`). They end with it.

use super::input_budget::InputBudget;
use super::login::GuestLogin;
use super::reverse_channel::{ChannelKind, ReverseChannels};
use crate::failure::Failure;
use crate::guest_listener::GuestListener;
use crate::output::{failure_line, to_stderr};
use crate::target::Target;
use minions_api::forward::ForwardAddress;
use russh::server::Handle;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Maximum number of listeners of one connection.
const MAX_LISTENERS: usize = 32;

/// Maximum number of connections of all listeners of one SSH connection.
const MAX_CONNECTIONS: usize = 64;

/// Deadline for listening. While the agent is asked, the SSH connection waits.
const DEADLINE: Duration = Duration::from_secs(20);

/// Name of the socket of the forwarded SSH agent, in its private directory.
const AGENT_SOCKET: &str = "agent";

/// Client's name for a listener, with which it cancels the listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ListenerName {
    /// Address as the client wrote it, and port; the chosen one for port 0.
    Tcp(String, u32),
    /// Path of a Unix socket.
    Unix(String),
}

/// Listeners of one connection. Dropping them closes the sockets.
#[derive(Debug)]
pub(super) struct GuestListeners {
    target: Arc<Target>,
    budget: Arc<InputBudget>,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    listeners: HashMap<ListenerName, ListenerTask>,
    agent: Option<AgentSocket>,
}

/// Running listener. Dropping it closes the socket.
#[derive(Debug)]
struct ListenerTask {
    task: JoinHandle<()>,
    _end: DropGuard,
}

/// Socket for the client's SSH agent.
#[derive(Debug)]
struct AgentSocket {
    path: String,
    listener: ListenerTask,
}

impl GuestListeners {
    /// Creates an empty set; `tasks` tracks the tasks of the listeners.
    pub(super) fn new(target: Arc<Target>, budget: Arc<InputBudget>, tasks: TaskTracker) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { target, budget, tasks, places, listeners: HashMap::new(), agent: None }
    }

    /// Listens on a TCP port, and returns the port; `None` if that failed. The reason goes to standard error, because
    /// SSH has no message for it.
    pub(super) async fn listen_tcp(
        &mut self,
        host: &str,
        port: u32,
        session: Handle,
    ) -> Option<u32> {
        let address = tcp_address(host, port);
        let kind = |port| ChannelKind::Tcp { host: host.to_owned(), port };
        let listener = self.open(&address, None).await?;
        let port = match listener.address() {
            ForwardAddress::Tcp(bound) => u32::from(bound.port()),
            ForwardAddress::Localhost(_) | ForwardAddress::Unix(_) | ForwardAddress::Private(_) => {
                port
            }
        };
        let listener = self.run(listener, kind(port), session);
        self.listeners.insert(ListenerName::Tcp(host.to_owned(), port), listener);
        Some(port)
    }

    /// Listens on a Unix socket of the login's user. Returns false if that failed.
    pub(super) async fn listen_unix(
        &mut self,
        path: &str,
        login: &GuestLogin,
        session: Handle,
    ) -> bool {
        let Some(listener) = self.open(&format!("unix:{path}"), login.user.clone()).await else {
            return false;
        };
        let listener = self.run(listener, ChannelKind::Unix { path: path.to_owned() }, session);
        self.listeners.insert(ListenerName::Unix(path.to_owned()), listener);
        true
    }

    /// Returns the path of the socket for the client's SSH agent, which is created at the first call; `None` if that
    /// failed.
    pub(super) async fn agent_socket(
        &mut self,
        login: &GuestLogin,
        session: Handle,
    ) -> Option<String> {
        let agent = self.agent.as_ref().filter(|agent| !agent.listener.task.is_finished());
        if let Some(AgentSocket { path, .. }) = agent {
            return Some(path.clone());
        }
        let address = format!("private:{AGENT_SOCKET}");
        let listener = self.open(&address, login.user.clone()).await?;
        let ForwardAddress::Unix(path) = listener.address().clone() else { return None };
        let listener = self.run(listener, ChannelKind::Agent, session);
        self.agent = Some(AgentSocket { path: path.clone(), listener });
        Some(path)
    }

    /// Closes a listener. Returns false if no listener has this name.
    pub(super) fn cancel(&mut self, name: &ListenerName) -> bool {
        self.listeners.remove(name).is_some()
    }

    async fn open(&self, address: &str, owner: Option<String>) -> Option<GuestListener> {
        match self.try_open(address, owner).await {
            Ok(listener) => Some(listener),
            Err(reason) => {
                to_stderr(&format!(
                    "minionsctl: cannot listen on {address:?} in the guest: {reason}"
                ));
                None
            }
        }
    }

    async fn try_open(
        &self,
        address: &str,
        owner: Option<String>,
    ) -> Result<GuestListener, String> {
        let Target::Vm(client, vm) = &*self.target else {
            return Err("listeners need minionsd: leave out --socket".into());
        };
        if self.listeners.len() >= MAX_LISTENERS {
            return Err(format!("the limit of {MAX_LISTENERS} listeners is reached"));
        }
        let address =
            address.parse().map_err(|invalid| failure_line(&Failure::Invalid(invalid)))?;
        let opening = GuestListener::open(Arc::clone(client), vm.clone(), &address, owner);
        match timeout(DEADLINE, opening).await {
            Ok(opened) => opened.map_err(|failure| failure_line(&failure)),
            Err(_) => Err("the agent did not answer before the deadline".into()),
        }
    }

    /// Starts to serve a listener.
    fn run(&self, listener: GuestListener, kind: ChannelKind, session: Handle) -> ListenerTask {
        let end = CancellationToken::new();
        let (target, budget) = (Arc::clone(&self.target), Arc::clone(&self.budget));
        let server = ReverseChannels::new(target, budget, kind, session);
        let (ended, places, tasks) = (end.clone(), Arc::clone(&self.places), self.tasks.clone());
        let task = self.tasks.spawn(async move {
            tokio::select! {
                () = listener.run(server, places, tasks) => {}
                () = ended.cancelled() => {}
            }
        });
        ListenerTask { task, _end: end.drop_guard() }
    }
}

/// Returns the address for the agent. As with sshd, `*` or nothing means all addresses.
fn tcp_address(host: &str, port: u32) -> String {
    match host {
        "" | "*" => format!("tcp:0.0.0.0:{port}"),
        host if host.contains(':') => format!("tcp:[{host}]:{port}"),
        host => format!("tcp:{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_client_is_one_of_the_agent() {
        for (host, address) in [
            ("localhost", "tcp:localhost:0"),
            ("", "tcp:0.0.0.0:0"),
            ("*", "tcp:0.0.0.0:0"),
            ("127.0.0.1", "tcp:127.0.0.1:0"),
            ("::1", "tcp:[::1]:0"),
        ] {
            assert_eq!(tcp_address(host, 0), address);
            assert!(address.parse::<ForwardAddress>().is_ok(), "{address}");
        }
        for (host, port) in [("localhost", 65_536), ("example.org", 80), ("a b", 1)] {
            assert!(tcp_address(host, port).parse::<ForwardAddress>().is_err(), "{host}:{port}");
        }
    }
}
