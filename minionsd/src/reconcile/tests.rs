//! The reconciler with a registry and a store, and VMs whose sockets never answer.

use super::attempt::AttemptKind;
use super::handle::{ApplyAnswer, ReconcileRequest};
use super::record::VmRecord;
use super::task::ReconcilerTask;
use super::wanted::WantedConfig;
use super::*;
use crate::budget::MemoryBudget;
use crate::config::{Config, RestoreRules, SampleIntervals};
use crate::declared::{DeclaredStore, StoreThread};
use crate::descriptors::Descriptors;
use crate::vm::look_slot::{LookNews, LookReport, LookRequest, RegularLook};
use crate::vm::{Registry, SharedResources, TrustedOwners, Vm, VmSettings};
use minions_api::VmName;
use minions_api::declaration::{ApplyRequest, ConfigState, DriftPolicy};
use minions_api::pool::ReserveRequest;
use minions_declare::{DeclareError, DeclaredState, Plan};
use minions_proto::message::ChangeNetwork;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const DEADLINE: Duration = Duration::from_secs(20);

struct TestHost {
    registry: Registry,
    store: DeclaredStore,
    conditions: VmConditions,
    dir: TempDir,
    _thread: StoreThread,
}

impl TestHost {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::parse("").unwrap();
        let (store, thread) = DeclaredStore::open(None).unwrap();
        let means = SharedResources {
            descriptors: Descriptors::of_process(),
            budget: MemoryBudget::default(),
            meters: Arc::default(),
        };
        let settings = VmSettings {
            pool_size: 2,
            clock_limit: None,
            restore: RestoreRules::default(),
            declared: store.clone(),
            reattach_grace: None,
            agent_ports: config.agent_ports.clone(),
            announce: None,
            samples: SampleIntervals::default(),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let trusted = TrustedOwners::of(&config);
        let registry =
            Registry::start(dir.path().to_owned(), trusted, settings, means, &tasks, &stop);
        let host =
            Self { registry, store, conditions: VmConditions::default(), dir, _thread: thread };
        host.until("the first scan", |host| host.registry.vms()).await;
        host
    }

    async fn until<T>(&self, what: &str, probe: impl Fn(&Self) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = probe(self) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("not in time: {what}"))
    }

    /// Starts a VM whose guest never answers.
    async fn vm(&self, name: &str) -> (UnixListener, Vm) {
        let listener = UnixListener::bind(self.dir.path().join(format!("{name}.vsock"))).unwrap();
        let name: VmName = name.parse().unwrap();
        let vm = self.until("the VM", |host| host.registry.vms()?.get(&name).cloned()).await;
        (listener, vm)
    }

    fn parts(&self) -> ReconcilerParts {
        ReconcilerParts {
            registry: self.registry.clone(),
            store: self.store.clone(),
            conditions: self.conditions.clone(),
            meters: Arc::default(),
        }
    }

    async fn apply(&self, json: &str) {
        let request: ApplyRequest = serde_json::from_str(json).unwrap();
        let plan = move |state: &DeclaredState| Ok((state.plan_apply(&request, &[])?.0, ()));
        self.store.change(plan).await.unwrap();
    }

    /// Reserves the address 10.0.0.7 of the pool `lan` for a VM.
    async fn reserve(&self, vm: &str) {
        let request = ReserveRequest {
            address: Some("10.0.0.7".parse().unwrap()),
            vm: Some(vm.parse().unwrap()),
            interface: String::new(),
        };
        let plan = move |state: &DeclaredState| state.plan_reserve("lan", &request);
        self.store.change(plan).await.unwrap();
    }

    /// Makes the writer of the declared state wait, as for a disk that hangs, until the sender is dropped.
    async fn block(&self) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (begins, begun) = tokio::sync::oneshot::channel();
        let store = self.store.clone();
        tokio::spawn(async move {
            let wait = move |_: &DeclaredState| -> Result<(Plan, ()), DeclareError> {
                let _ = begins.send(());
                let _ = released.recv();
                Ok((Plan::default(), ()))
            };
            store.change(wait).await
        });
        begun.await.unwrap();
        release
    }
}

const LAN: &str = r#"{"pools": [{"name": "lan", "subnet": "10.0.0.0/24"}]}"#;

#[tokio::test]
async fn a_search_for_unneeded_leases_that_waits_for_the_disk_does_not_delay_the_task() {
    let host = TestHost::start().await;
    host.apply(LAN).await;
    host.reserve("later").await;
    let (_listener, vm) = host.vm("a").await;
    let release = host.block().await;
    let stop = CancellationToken::new();
    let (reconciler, task) = host.parts().start(stop.clone());
    tokio::spawn(task);
    host.until("the search waits", |host| (host.store.waiting() > 0).then_some(())).await;
    let applied = reconciler.apply_now(&vm, Instant::now() + DEADLINE / 4).await;
    assert_eq!(applied, Err(NotApplied::NothingDeclared));
    drop(release);
    stop.cancel();
}

#[tokio::test]
async fn a_vm_that_comes_while_a_release_waits_keeps_its_address() {
    let host = TestHost::start().await;
    host.apply(LAN).await;
    host.reserve("late").await;
    let block = host.block().await;
    let address = "10.0.0.7".parse().unwrap();
    let TestHost { store, registry, conditions, .. } = &host;
    let lease = (Some("lan".to_owned()), address);
    let released = release(store, registry, conditions, Reconciler::new().0, lease);
    let comes = async {
        host.until("the release waits", |host| (host.store.waiting() > 0).then_some(())).await;
        let vm = host.vm("late").await;
        drop(block);
        vm
    };
    let (released, _vm) = tokio::join!(released, comes);
    let refusal = released.unwrap_err().to_string();
    assert!(refusal.contains("in use by late"), "{refusal}");
}

#[tokio::test]
async fn a_lease_that_is_released_after_its_caller_has_gone_has_its_vm_compared() {
    let host = TestHost::start().await;
    host.apply(LAN).await;
    host.reserve("late").await;
    let block = host.block().await;
    let (reconciler, mut asked) = Reconciler::new();
    let TestHost { store, registry, conditions, .. } = &host;
    let lease = (Some("lan".to_owned()), "10.0.0.7".parse().unwrap());
    tokio::select! {
        released = release(store, registry, conditions, reconciler, lease) => panic!("{released:?}"),
        () = host.until("it waits", |host| (host.store.waiting() > 0).then_some(())) => {}
    }
    drop(block);
    let request = timeout(DEADLINE, asked.recv()).await.unwrap();
    let Some(ReconcileRequest::Look(vm)) = request else { panic!("{request:?}") };
    assert_eq!(vm.as_str(), "late");
}

#[tokio::test]
async fn a_vm_that_goes_or_is_replaced_is_named_to_those_who_wait_for_its_configuration() {
    let (host, other) = (TestHost::start().await, TestHost::start().await);
    host.apply(r#"{"declarations": [{"name": "*", "hostname": "x"}]}"#).await;
    let (_first, vm) = host.vm("a").await;
    let (_second, namesake) = other.vm("a").await;
    let (_third, stranger) = other.vm("b").await;
    let mut task = ReconcilerTask::new(host.parts());
    let ask = |task: &mut ReconcilerTask, vm: &Vm| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        task.requested(ReconcileRequest::Apply(vm.clone(), answer));
        answered
    };
    assert_eq!(ask(&mut task, &stranger).await, Ok(ApplyAnswer::Gone));
    assert_eq!(ask(&mut task, &namesake).await, Ok(ApplyAnswer::Replaced));
    let mut waits = ask(&mut task, &vm);
    assert!(waits.try_recv().is_err(), "its attempt has not ended");
    task.gone(vm.name());
    assert_eq!(waits.await, Ok(ApplyAnswer::Gone));
}

#[tokio::test]
async fn a_guest_is_looked_at_only_if_its_drift_matters() {
    let host = TestHost::start().await;
    let (_listener, vm) = host.vm("a").await;
    for (drift, attempts) in [(DriftPolicy::Off, 0), (DriftPolicy::Report, 1)] {
        let declared = serde_json::json!({
            "declarations": [{ "name": "a", "hostname": "x", "drift": drift }],
        });
        host.apply(&declared.to_string()).await;
        let mut task = ReconcilerTask::new(host.parts());
        let wanted = host.store.read(|state| WantedConfig::of(state, vm.name())).unwrap();
        let mut record = VmRecord::new(vm.clone());
        (record.wanted, record.next) = (Some(wanted), AttemptKind::Look);
        task.records.insert(vm.name().clone(), record);
        let look = LookRequest::of(&ChangeNetwork::default()).ok();
        task.drifted(vm.name(), wanted, "the guest differs".to_owned(), look);
        assert_eq!(vm.look_slot().due().is_some(), attempts == 1, "{drift:?}");
        task.schedule.plan(vm.name(), Instant::now());
        task.start_due();
        assert_eq!(task.attempts.len(), attempts, "{drift:?}");
    }
}

#[tokio::test]
async fn a_changed_network_is_looked_at_soon_but_not_all_the_time() {
    let host = TestHost::start().await;
    let (_listener, vm) = host.vm("a").await;
    for (drift, is_looked_at) in [(DriftPolicy::Off, false), (DriftPolicy::Repair, true)] {
        let declared = serde_json::json!({
            "declarations": [{ "name": "a", "hostname": "x", "drift": drift }],
        });
        host.apply(&declared.to_string()).await;
        let mut task = ReconcilerTask::new(host.parts());
        let mut record = VmRecord::new(vm.clone());
        record.wanted = host.store.read(|state| WantedConfig::of(state, vm.name()));
        record.next = AttemptKind::Look;
        record.attempted_at = Some(Instant::now());
        task.records.insert(vm.name().clone(), record);
        task.network_changed(vm.name());
        task.start_due();
        assert!(task.attempts.is_empty(), "the last attempt has just ended");
        assert_eq!(task.schedule.next_after(Instant::now()).is_some(), is_looked_at);
        task.schedule.cancel(vm.name());
        task.records.get_mut(vm.name()).unwrap().attempted_at = None;
        task.network_changed(vm.name());
        task.start_due();
        assert_eq!(task.attempts.len(), usize::from(is_looked_at));
    }
}

#[tokio::test]
async fn news_of_a_regular_look_counts_once_and_looks_end_with_their_reason() {
    let host = TestHost::start().await;
    let (_listener, vm) = host.vm("a").await;
    let declare = async |drift: &str| {
        let json = serde_json::json!({
            "declarations": [{ "name": "a", "hostname": "x", "drift": drift }],
        });
        host.apply(&json.to_string()).await;
    };
    let request = || LookRequest::of(&ChangeNetwork::default()).unwrap();
    let mut task = ReconcilerTask::new(host.parts());
    let differs = || LookNews::Differs("the guest differs".to_owned());
    let report = |task: &ReconcilerTask, number, news: LookNews| LookReport {
        look: Box::new(RegularLook {
            vm: vm.name().clone(),
            number,
            request: request(),
            due: Instant::now(),
            reports_agreement: true,
            reports: task.reports.clone(),
        }),
        news,
    };
    let look = |task: &ReconcilerTask| task.records.get(vm.name()).and_then(|record| record.look);
    let state = || host.conditions.state(vm.name());

    declare("report").await;
    task.look_at_all(false).await;
    let wanted = task.records[vm.name()].wanted.unwrap();
    task.drifted(vm.name(), wanted, "the guest differs".to_owned(), Some(request()));
    assert_eq!((state(), look(&task)), (Some(ConfigState::Drifted), Some(1)));

    task.looked(report(&task, 1, LookNews::Agrees));
    assert_eq!((state(), look(&task)), (Some(ConfigState::Applied), Some(2)));
    task.looked(report(&task, 1, differs()));
    assert_eq!((state(), look(&task)), (Some(ConfigState::Applied), Some(2)), "an earlier look");
    task.looked(report(&task, 2, differs()));
    assert_eq!((state(), look(&task)), (Some(ConfigState::Drifted), Some(3)));
    task.looked(report(&task, 3, LookNews::Agrees));

    task.schedule.cancel(vm.name());
    task.looked(report(&task, 4, LookNews::Unanswered));
    assert_eq!(look(&task), None);
    task.start_due();
    assert_eq!(task.attempts.len(), 1, "another connection is tried");

    for drift in ["report", "off"] {
        task.drifted(vm.name(), wanted, "the guest differs".to_owned(), Some(request()));
        declare(drift).await;
        task.look_at_all(false).await;
        assert_eq!(vm.look_slot().due().is_some(), drift == "report");
    }
    assert_eq!(task.schedule.next_after(Instant::now()), None);
    declare("report").await;
    task.look_at_all(false).await;
    assert!(task.schedule.next_after(Instant::now()).is_some(), "it is compared again");

    task.drifted(vm.name(), wanted, "the guest differs".to_owned(), Some(request()));
    task.gone(vm.name());
    assert_eq!(vm.look_slot().due(), None);
}
