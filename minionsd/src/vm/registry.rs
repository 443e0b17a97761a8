//! The VMs by name.
//!
//! One task owns the set: it turns what discovery finds into supervisors that start and stop.
//! Everybody else reads the latest picture of it.

use super::discovery::{self, SocketId, Sockets};
use super::status::VmStatus;
use super::supervisor::Supervisor;
use crate::agent::{AgentClient, Connector, Dials, Pool};
use minions_api::vm::VmState;
use minions_api::{Timestamp, VmName};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

    /// What the supervisor published last.
    pub(crate) fn status(&self) -> VmStatus {
        self.status.borrow().clone()
    }

    pub(crate) fn client(&self) -> &AgentClient {
        &self.client
    }

    pub(crate) fn socket(&self) -> &Path {
        self.client.pool().connector().socket()
    }
}

/// All of them.
pub(crate) type Vms = BTreeMap<VmName, Vm>;

/// The picture. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    /// `None` until the directory has been looked at once.
    vms: watch::Receiver<Option<Arc<Vms>>>,
}

impl Registry {
    /// Starts to discover the VMs in `socket_dir` and to supervise each, with at most `pool_size`
    /// calls under way per VM. Everything runs in `tasks` and ends with `stop`.
    pub(crate) fn start(
        socket_dir: PathBuf,
        pool_size: usize,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (publish, vms) = watch::channel(None);
        let (found, sockets) = mpsc::channel(1);
        let keeper = Keeper {
            pool_size,
            dials: Dials::new(MAX_DIALS, tasks.clone()),
            tasks: tasks.clone(),
            stop: stop.child_token(),
            known: BTreeMap::new(),
            publish,
        };
        tasks.spawn(discovery::watch(socket_dir, found));
        tasks.spawn(keeper.run(sockets));
        Self { vms }
    }

    /// All VMs by name; `None` until the directory has been looked at once: nobody can say yet.
    pub(crate) fn vms(&self) -> Option<Arc<Vms>> {
        self.vms.borrow().clone()
    }
}

/// Owns the set of VMs.
struct Keeper {
    pool_size: usize,
    dials: Dials,
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
        self.known.retain(|name, known| {
            let stays = found.get(name).is_some_and(|socket| socket.id == known.socket);
            if !stays {
                known.stop.cancel();
            }
            stays
        });
        let mut changed = self.known.len() != before;
        for (name, socket) in found {
            if !self.known.contains_key(&name) {
                let known = self.supervise(name.clone(), socket);
                self.known.insert(name, known);
                changed = true;
            }
        }
        if changed || self.publish.borrow().is_none() {
            let vms = self.known.iter().map(|(name, known)| (name.clone(), known.vm.clone()));
            self.publish.send_replace(Some(Arc::new(vms.collect())));
        }
    }

    fn supervise(&self, name: VmName, socket: discovery::Socket) -> Known {
        tracing::info!(vm = %name, state = VmState::Connecting.as_str(), "vm found");
        let pool = Pool::new(Connector::new(socket.path, self.dials.clone()), self.pool_size);
        let (publish, status) = watch::channel(VmStatus::found(Timestamp::now()));
        let nudge = Arc::new(Notify::new());
        let stop = self.stop.child_token();
        let client = AgentClient::new(pool.clone(), status.clone(), Arc::clone(&nudge));
        let supervisor =
            Supervisor { name: name.clone(), pool, status: publish, nudge, stop: stop.clone() };
        self.tasks.spawn(supervisor.run());
        Known { socket: socket.id, stop, vm: Vm { name, status, client: Arc::new(client) } }
    }
}
