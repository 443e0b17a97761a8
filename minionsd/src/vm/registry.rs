//! Registry of the VMs, by name.
//!
//! One task owns the set of VMs: it starts and stops supervisors according to the sockets that discovery finds. All
//! other tasks read the latest published set.

use super::announce::{AnnounceKeeper, ReceivedAnnouncement};
use super::discovery::{self, ScanResult, Sockets};
use super::ending::EndingKind;
use super::generation::{InstanceOwners, LastInstances};
use super::look_slot::LookSlot;
use super::network_news::NetworkNews;
use super::quiesce_lease::HostLease;
use super::restore::{LastNetworks, RestorePlan};
use super::samples::SampleSeries;
use super::socket_dir::TrustedOwners;
use super::status::VmStatus;
use super::supervisor::{Supervisor, Verdict};
use super::transition::FAILURES_TO_UNREACHABLE;
use crate::agent::{
    AgentClient, AgentStatus, CallOutcomes, Connector, Dials, IncarnationId, Pool, SocketId,
    StreamTurns, VmSocket,
};
use crate::budget::MemoryBudget;
use crate::config::{AgentPorts, RestoreRules, SampleIntervals};
use crate::declared::DeclaredStore;
use crate::descriptors::Descriptors;
use crate::events::EventHistory;
use crate::metrics::Meters;
use minions_api::event::{Event, EventKind};
use minions_api::restore::RestoreReport;
use minions_api::vm::VmState;
use minions_api::{Timestamp, VmName};
use minions_proto::AgentPort;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Limit of dials in progress, over all VMs.
const MAX_DIALS: usize = 64;

/// Limit of supervisors' verdicts that wait for the registry.
const VERDICTS: usize = 64;

/// Handle of a VM: reads its state and calls its agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Vm {
    name: VmName,
    status: watch::Receiver<VmStatus>,
    client: Arc<AgentClient>,
    /// Last requested end of the guest, for the supervisor.
    asked: watch::Sender<Option<EndingKind>>,
    lease: HostLease,
    /// Number of the last request to restore the guest, for the supervisor.
    restores: watch::Sender<u64>,
    networks: LastNetworks,
    look_slot: LookSlot,
    samples: SampleSeries,
    reattach_grace: Option<Duration>,
}

impl Vm {
    pub(crate) fn name(&self) -> &VmName {
        &self.name
    }

    /// Reports whether both are handles of one VM, and not of two that have had the same name.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.status.same_channel(&other.status)
    }

    /// Returns the VM's state: it tells whether the agent answers.
    pub(crate) fn state(&self) -> VmState {
        self.status.borrow().state
    }

    /// Returns the status that the supervisor published last.
    pub(crate) fn status(&self) -> VmStatus {
        self.status.borrow().clone()
    }

    /// Returns the time at which the current boot became ready for the first time.
    pub(crate) fn ready_at(&self) -> Option<Timestamp> {
        self.status.borrow().boot_timeline().ready_at
    }

    /// Records that the guest was asked to end.
    pub(crate) fn asked_to_end(&self, kind: EndingKind) {
        self.asked.send_replace(Some(kind));
    }

    /// Returns a handle of the VM whose calls reach this incarnation of the guest, or fail.
    pub(crate) fn with_precondition(&self, only: IncarnationId) -> Self {
        Self { client: Arc::new(self.client.with_precondition(only)), ..self.clone() }
    }

    /// Returns the re-attach grace of new programs in milliseconds; `None` for the agent's default.
    pub(crate) fn reattach_grace_ms(&self) -> Option<u64> {
        self.reattach_grace.and_then(|grace| u64::try_from(grace.as_millis()).ok())
    }

    /// Returns the lease of the quiesced guest.
    pub(crate) fn lease(&self) -> &HostLease {
        &self.lease
    }

    /// Returns the place for looks that the supervisor makes.
    pub(crate) fn look_slot(&self) -> &LookSlot {
        &self.look_slot
    }

    /// Returns the samples of the guest's figures.
    pub(crate) fn samples(&self) -> &SampleSeries {
        &self.samples
    }

    /// Makes the supervisor treat the guest as restored, and waits for the report of the steps. Returns `None` at the
    /// deadline, or if the VM is gone.
    pub(crate) async fn restore(&self, deadline: Instant) -> Option<RestoreReport> {
        let mut status = self.status.clone();
        let mut number = 0;
        self.restores.send_modify(|last| {
            *last += 1;
            number = *last;
        });
        let is_over = status.wait_for(|status| status.restores_carried_out >= number);
        timeout_at(deadline, is_over).await.ok()?.ok()?.restore.clone()
    }

    /// Returns the networks that clients have set.
    pub(crate) fn networks(&self) -> &LastNetworks {
        &self.networks
    }

    pub(crate) fn client(&self) -> &AgentClient {
        &self.client
    }

    /// Returns the turns that all streams of the VM share.
    pub(crate) fn turns(&self) -> &StreamTurns {
        self.client.pool().turns()
    }

    pub(crate) fn socket(&self) -> &Path {
        self.client.pool().connector().socket()
    }

    /// Returns the VSOCK port of the agent.
    pub(crate) fn agent_port(&self) -> AgentPort {
        self.client.pool().connector().port()
    }
}

/// All VMs, by name.
pub(crate) type Vms = BTreeMap<VmName, Vm>;

/// Settings that apply to each VM.
#[derive(Debug, Clone)]
pub(crate) struct VmSettings {
    /// Limit of concurrent calls to the agent.
    pub(crate) pool_size: usize,
    /// Deviation above which the clock of a guest without a limit of its own is set; `None` never sets it.
    pub(crate) clock_limit: Option<Duration>,
    /// Restore steps of the guests.
    pub(crate) restore: RestoreRules,
    /// Declared settings, which have precedence.
    pub(crate) declared: DeclaredStore,
    /// Re-attach grace of new programs; `None` for the agent's default.
    pub(crate) reattach_grace: Option<Duration>,
    /// VSOCK ports of the agents.
    pub(crate) agent_ports: AgentPorts,
    /// Intervals between samples of the guests' figures.
    pub(crate) samples: SampleIntervals,
    /// Owners that may hold the directories of sockets for announcements; `None` for no such sockets.
    pub(crate) announce: Option<TrustedOwners>,
}

/// Handle of the registry. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    /// Latest set of VMs; `None` until the first scan of the directory.
    vms: watch::Receiver<Option<Arc<Vms>>>,
    events: EventHistory,
    dials: Dials,
    network_news: NetworkNews,
}

/// Resources that the VMs share with the rest of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct SharedResources {
    pub(crate) descriptors: Descriptors,
    pub(crate) budget: MemoryBudget,
    pub(crate) meters: Arc<Meters>,
}

impl Registry {
    /// Starts to discover the VMs in `socket_dir`, if that is `trusted`, and to supervise them with the settings
    /// `each`. All tasks run in `tasks` and end when `stop` is cancelled.
    pub(crate) fn start(
        socket_dir: PathBuf,
        trusted: TrustedOwners,
        each: VmSettings,
        means: SharedResources,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (publish, vms) = watch::channel(None);
        let (found, looks) = mpsc::channel(1);
        let (verdicts, judged) = mpsc::channel(VERDICTS);
        let events = EventHistory::new();
        let network_news = NetworkNews::default();
        let SharedResources { descriptors, budget, meters } = means;
        let dials = Dials::new(MAX_DIALS, tasks.clone(), descriptors, budget, Arc::clone(&meters));
        let keeper = RegistryTask {
            each,
            dials: dials.clone(),
            events: events.clone(),
            meters: Arc::clone(&meters),
            tasks: tasks.clone(),
            stop: stop.child_token(),
            known: BTreeMap::new(),
            supervised: 0,
            owners: InstanceOwners::default(),
            instances: LastInstances::default(),
            networks: LastNetworks::default(),
            network_news: network_news.clone(),
            verdicts,
            publish,
        };
        tasks.spawn(discovery::watch(socket_dir, trusted, meters, found));
        tasks.spawn(keeper.run(looks, judged));
        Self { vms, events, dials, network_news }
    }

    /// Returns the VMs whose guests report that their network has changed.
    pub(crate) fn network_news(&self) -> &NetworkNews {
        &self.network_news
    }

    /// Returns the events of all VMs.
    pub(crate) fn events(&self) -> &EventHistory {
        &self.events
    }

    /// Returns the dial resources that all VMs share.
    pub(crate) fn dials(&self) -> &Dials {
        &self.dials
    }

    /// Returns all VMs by name; `None` until the first scan of the directory.
    pub(crate) fn vms(&self) -> Option<Arc<Vms>> {
        self.vms.borrow().clone()
    }
}

/// Task that owns the set of VMs.
struct RegistryTask {
    each: VmSettings,
    dials: Dials,
    events: EventHistory,
    meters: Arc<Meters>,
    tasks: TaskTracker,
    stop: CancellationToken,
    known: BTreeMap<VmName, KnownVm>,
    /// Number of supervisors started so far.
    supervised: u64,
    owners: InstanceOwners,
    instances: LastInstances,
    networks: LastNetworks,
    network_news: NetworkNews,
    verdicts: mpsc::Sender<VmVerdict>,
    publish: watch::Sender<Option<Arc<Vms>>>,
}

struct KnownVm {
    /// Current socket; `None` while the VMM has removed it.
    socket: watch::Sender<Option<SocketId>>,
    /// Number of the supervisor, to ignore verdicts of earlier ones.
    supervisor: u64,
    stop: CancellationToken,
    vm: Vm,
}

/// Verdict of a supervisor about its VM.
struct VmVerdict {
    name: VmName,
    supervisor: u64,
    verdict: Verdict,
}

/// Change of the set of VMs.
#[derive(Default)]
struct VmSetChange {
    gone: Vec<Vm>,
    replaced: BTreeSet<VmName>,
    came: Vec<Vm>,
}

impl RegistryTask {
    async fn run(
        mut self,
        mut looks: mpsc::Receiver<ScanResult>,
        mut judged: mpsc::Receiver<VmVerdict>,
    ) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                // Dropping the receiver ends the discovery.
                () = stop.cancelled() => return,
                Some(judged) = judged.recv() => self.judged(judged),
                look = looks.recv() => match look {
                    Some(ScanResult::Sockets(found)) => self.reconcile(found, true),
                    Some(ScanResult::Closed) => self.reconcile(Sockets::new(), false),
                    None => return,
                },
            }
        }
    }

    /// Updates the set of VMs to match the sockets found. If `may_reboot` is true, a VM whose socket vanished or
    /// changed while its VMM is alive stays: its supervisor finds out whether it reboots.
    fn reconcile(&mut self, found: Sockets, may_reboot: bool) {
        let mut change = VmSetChange::default();
        self.known.retain(|name, known| {
            let now = found.get(name).map(|socket| socket.id);
            let before = *known.socket.borrow();
            if now == before {
                return true;
            }
            if may_reboot && (before.is_none() || known.vm.status().may_reboot()) {
                known.socket.send_replace(now);
                return true;
            }
            known.stop.cancel();
            if now.is_some() {
                change.replaced.insert(name.clone());
            } else {
                change.gone.push(known.vm.clone());
            }
            false
        });
        for (name, socket) in found {
            if !self.known.contains_key(&name) {
                change.came.push(self.supervise(name, socket));
            }
        }
        self.changed(change);
    }

    /// Removes a VM after its supervisor's verdict. A socket that has the name now belongs to another VM.
    fn judged(&mut self, VmVerdict { name, supervisor, verdict }: VmVerdict) {
        let is_latest = |known: &KnownVm| known.supervisor == supervisor;
        let Some(known) = self.known.get(&name).filter(|known| is_latest(known)) else { return };
        let (vm, socket) = (known.vm.clone(), *known.socket.borrow());
        self.known.remove(&name);
        let mut change = VmSetChange::default();
        match (verdict, socket) {
            (Verdict::Replaced, Some(_)) => _ = change.replaced.insert(name.clone()),
            (Verdict::Replaced | Verdict::Gone, _) => change.gone.push(vm.clone()),
        }
        if let Some(id) = socket {
            let socket = VmSocket { path: vm.socket().to_owned(), id };
            change.came.push(self.supervise(name, socket));
        }
        self.changed(change);
    }

    /// Publishes the set of VMs after a change, then the events, so that a reader of an event sees the change.
    fn changed(&self, VmSetChange { gone, replaced, came }: VmSetChange) {
        let is_none = gone.is_empty() && replaced.is_empty() && came.is_empty();
        if !is_none || self.publish.borrow().is_none() {
            let vms = self.known.iter().map(|(name, known)| (name.clone(), known.vm.clone()));
            self.publish.send_replace(Some(Arc::new(vms.collect())));
        }
        for vm in &gone {
            tracing::info!(vm = %vm.name, "vm gone");
            self.events.publish(happened(EventKind::VmGone, vm));
        }
        for vm in &came {
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

    fn supervise(&mut self, name: VmName, socket: VmSocket) -> Vm {
        let (id, socket_path) = (socket.id, socket.path.clone());
        let nudge = Arc::new(Notify::new());
        let calls = Arc::new(CallOutcomes::new(FAILURES_TO_UNREACHABLE));
        let port = self.each.agent_ports.of(&name);
        let connector = Connector::new(socket, self.dials.clone()).on_port(port);
        let pool = Pool::new(connector, self.each.pool_size, Arc::clone(&nudge));
        let (publish, status) = watch::channel(VmStatus::found(id, Timestamp::now()));
        let (socket, asked) = (watch::Sender::new(Some(id)), watch::Sender::new(None));
        let restores = watch::Sender::new(0);
        let announced = self.listen_for_agent(&name, &socket_path);
        let networks = self.networks.clone();
        let policy = self.each.restore.of(&name);
        let samples = SampleSeries::new(self.each.samples.of(&name));
        let (stop, lease, look_slot) =
            (self.stop.child_token(), HostLease::default(), LookSlot::default());
        let (publish_agent, agent) = watch::channel(AgentStatus::default());
        let client = AgentClient::new(pool.clone(), agent, Arc::clone(&nudge), Arc::clone(&calls));
        let supervisor = Supervisor {
            name: name.clone(),
            pool,
            agent: publish_agent,
            status: publish,
            nudge,
            calls,
            events: self.events.clone(),
            meters: Arc::clone(&self.meters),
            clock_limit: policy.clock_limit.or_global(self.each.clock_limit),
            restore: RestorePlan {
                policy,
                networks: networks.clone(),
                declared: self.each.declared.clone(),
            },
            owners: self.owners.clone(),
            instances: self.instances.clone(),
            network_news: self.network_news.clone(),
            stop: stop.clone(),
            socket: socket.subscribe(),
            asked: asked.subscribe(),
            announced,
            lease: lease.clone(),
            look_slot: look_slot.clone(),
            samples: samples.clone(),
            restores: restores.subscribe(),
        };
        self.supervised += 1;
        let (number, verdicts, judged) = (self.supervised, self.verdicts.clone(), name.clone());
        // Boxed, because a task has a place of its own for what it takes over.
        let mut supervised = Box::pin(supervisor.run());
        self.tasks.spawn(async move {
            if let Some(verdict) = supervised.as_mut().await {
                // Fails only when the daemon ends.
                let judged = VmVerdict { name: judged, supervisor: number, verdict };
                let _ = verdicts.send(judged).await;
            }
        });
        let vm = Vm {
            name: name.clone(),
            status,
            client: Arc::new(client),
            asked,
            lease,
            restores,
            networks,
            look_slot,
            samples,
            reattach_grace: self.each.reattach_grace,
        };
        self.known.insert(name, KnownVm { socket, supervisor: number, stop, vm: vm.clone() });
        vm
    }
}

impl RegistryTask {
    /// Starts to listen for announcements of the VM's agent, if that is configured.
    fn listen_for_agent(
        &self,
        vm: &VmName,
        socket: &Path,
    ) -> watch::Receiver<Option<ReceivedAnnouncement>> {
        let (announced, announcements) = watch::channel(None);
        if let Some(trusted) = self.each.announce.clone() {
            let keeper = AnnounceKeeper {
                vm: vm.clone(),
                vm_socket: socket.to_owned(),
                trusted,
                descriptors: self.dials.descriptors().clone(),
                announced,
            };
            self.tasks.spawn(keeper.run());
        }
        announcements
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
        parent: None,
        parent_vm: None,
        configured: None,
        configuration: None,
        incarnation: vm.status().incarnation(),
    }
}
