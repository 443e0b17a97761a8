//! The VMs by name.
//!
//! One task owns the set: it turns what discovery finds into supervisors that start and stop.
//! Everybody else reads the latest picture of it.

use super::discovery::{self, SocketId, Sockets};
use super::socket_dir::Trusted;
use super::status::VmStatus;
use super::supervisor::Supervisor;
use crate::agent::{AgentClient, Calls, Connector, Dials, Pool, StreamTurns};
use crate::budget::Budget;
use crate::config::AgentPorts;
use crate::descriptors::Descriptors;
use crate::events::Events;
use crate::metrics::Meters;
use minions_api::event::{Event, EventKind};
use minions_api::vm::VmState;
use minions_api::{Timestamp, VmName};
use minions_proto::AgentPort;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Dials in flight over all VMs.
const MAX_DIALS: usize = 64;

/// A VM, for whoever wants to know about it or call its agent. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Vm {
    name: VmName,
    status: watch::Receiver<VmStatus>,
    client: Arc<AgentClient>,
}

impl Vm {
    pub(crate) fn name(&self) -> &VmName {
        &self.name
    }

    /// Whether its agent answers.
    pub(crate) fn state(&self) -> VmState {
        self.status.borrow().state
    }

    /// What the supervisor published last.
    pub(crate) fn status(&self) -> VmStatus {
        self.status.borrow().clone()
    }

    pub(crate) fn client(&self) -> &AgentClient {
        &self.client
    }

    /// The turns in which all its streams work.
    pub(crate) fn turns(&self) -> &StreamTurns {
        self.client.pool().turns()
    }

    pub(crate) fn socket(&self) -> &Path {
        self.client.pool().connector().socket()
    }

    /// Returns the VSOCK port of its agent.
    pub(crate) fn agent_port(&self) -> AgentPort {
        self.client.pool().connector().port()
    }
}

/// All of them.
pub(crate) type Vms = BTreeMap<VmName, Vm>;

/// What the configuration says for each VM.
#[derive(Debug, Clone)]
pub(crate) struct Each {
    /// Calls under way at once.
    pub(crate) pool_size: usize,
    /// A clock that is off by more is set; never without.
    pub(crate) clock_limit: Option<Duration>,
    /// VSOCK ports of the agents.
    pub(crate) agent_ports: AgentPorts,
}

/// The picture. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    /// `None` until the directory has been looked at once.
    vms: watch::Receiver<Option<Arc<Vms>>>,
    events: Events,
    dials: Dials,
}

/// What the VMs share with the rest of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    pub(crate) descriptors: Descriptors,
    pub(crate) budget: Budget,
    pub(crate) meters: Arc<Meters>,
}

impl Registry {
    /// Starts to discover the VMs in `socket_dir`, if that is `trusted`, and to supervise each as `each` says.
    /// Everything runs in `tasks` and ends with `stop`.
    pub(crate) fn start(
        socket_dir: PathBuf,
        trusted: Trusted,
        each: Each,
        means: Means,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (publish, vms) = watch::channel(None);
        let (found, sockets) = mpsc::channel(1);
        let events = Events::new();
        let Means { descriptors, budget, meters } = means;
        let dials = Dials::new(MAX_DIALS, tasks.clone(), descriptors, budget, Arc::clone(&meters));
        let keeper = Keeper {
            each,
            dials: dials.clone(),
            events: events.clone(),
            meters: Arc::clone(&meters),
            tasks: tasks.clone(),
            stop: stop.child_token(),
            known: BTreeMap::new(),
            publish,
        };
        tasks.spawn(discovery::watch(socket_dir, trusted, meters, found));
        tasks.spawn(keeper.run(sockets));
        Self { vms, events, dials }
    }

    /// What happens to VMs.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// What the ways to all VMs share.
    pub(crate) fn dials(&self) -> &Dials {
        &self.dials
    }

    /// All VMs by name; `None` until the directory has been looked at once: nobody can say yet.
    pub(crate) fn vms(&self) -> Option<Arc<Vms>> {
        self.vms.borrow().clone()
    }
}

/// Owns the set of VMs.
struct Keeper {
    each: Each,
    dials: Dials,
    events: Events,
    meters: Arc<Meters>,
    tasks: TaskTracker,
    stop: CancellationToken,
    known: BTreeMap<VmName, Known>,
    publish: watch::Sender<Option<Arc<Vms>>>,
}

struct Known {
    socket: SocketId,
    stop: CancellationToken,
    vm: Vm,
}

impl Keeper {
    async fn run(mut self, mut sockets: mpsc::Receiver<Sockets>) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                // Dropping the receiver is what ends the discovery.
                () = stop.cancelled() => return,
                found = sockets.recv() => match found {
                    Some(found) => self.reconcile(found),
                    None => return,
                },
            }
        }
    }

    /// Makes the set of VMs the set of sockets.
    fn reconcile(&mut self, found: Sockets) {
        let before = self.known.len();
        let mut replaced = BTreeSet::new();
        let mut gone = Vec::new();
        self.known.retain(|name, known| {
            let now = found.get(name);
            let stays = now.is_some_and(|socket| socket.id == known.socket);
            if !stays {
                known.stop.cancel();
                if now.is_some() {
                    replaced.insert(name.clone());
                } else {
                    gone.push(known.vm.clone());
                }
            }
            stays
        });
        let lost = self.known.len() != before;
        let mut came = Vec::new();
        for (name, socket) in found {
            if !self.known.contains_key(&name) {
                let known = self.supervise(name.clone(), socket);
                came.push(known.vm.clone());
                self.known.insert(name, known);
            }
        }
        if lost || !came.is_empty() || self.publish.borrow().is_none() {
            let vms = self.known.iter().map(|(name, known)| (name.clone(), known.vm.clone()));
            self.publish.send_replace(Some(Arc::new(vms.collect())));
        }
        self.tell(&gone, &replaced, &came);
    }

    /// Tells what happened, now that everybody who hears of it can see it.
    fn tell(&self, gone: &[Vm], replaced: &BTreeSet<VmName>, came: &[Vm]) {
        for vm in gone {
            tracing::info!(vm = %vm.name, "vm gone");
            self.events.publish(happened(EventKind::VmGone, vm));
        }
        for vm in came {
            let kind = if replaced.contains(&vm.name) {
                tracing::info!(vm = %vm.name, "vm replaced");
                EventKind::VmReplaced
            } else {
                tracing::info!(vm = %vm.name, state = VmState::Connecting.as_str(), "vm found");
                EventKind::VmFound
            };
            self.events.publish(happened(kind, vm));
        }
    }

    fn supervise(&self, name: VmName, socket: discovery::Socket) -> Known {
        let id = socket.id;
        let (nudge, calls) = (Arc::new(Notify::new()), Arc::new(Calls::default()));
        let port = self.each.agent_ports.of(&name);
        let connector = Connector::new(socket, self.dials.clone()).on_port(port);
        let pool = Pool::new(connector, self.each.pool_size, Arc::clone(&nudge));
        let (publish, status) = watch::channel(VmStatus::found(id, Timestamp::now()));
        let stop = self.stop.child_token();
        let client =
            AgentClient::new(pool.clone(), status.clone(), Arc::clone(&nudge), Arc::clone(&calls));
        let supervisor = Supervisor {
            name: name.clone(),
            pool,
            status: publish,
            nudge,
            calls,
            events: self.events.clone(),
            meters: Arc::clone(&self.meters),
            clock_limit: self.each.clock_limit,
            stop: stop.clone(),
        };
        self.tasks.spawn(supervisor.run());
        Known { socket: id, stop, vm: Vm { name, status, client: Arc::new(client) } }
    }
}

fn happened(kind: EventKind, vm: &Vm) -> Event {
    Event {
        kind,
        at: Timestamp::now(),
        vm: vm.name.clone(),
        state: None,
        before: None,
        cause: None,
        reason: None,
        incarnation: vm.status().incarnation(),
    }
}
