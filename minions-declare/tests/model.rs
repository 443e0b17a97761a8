//! Model of a host over a long time: VMs come, go, reboot and get other names, pools are nearly exhausted, and the daemon
//! is killed at random points. After every step, the invariants hold.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "in tests, a panic with its location is the report"
)]

use minions_api::declaration::ApplyRequest;
use minions_api::pool::Lease;
use minions_api::{Timestamp, VmName};
use minions_declare::document::{Document, DocumentFormat};
use minions_declare::{Change, DeclareError, DeclaredState, Plan};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

const DECLARED: &str = "
pools:
  - {name: small, subnet: 10.0.0.0/24, range: 10.0.0.2-10.0.0.120, gateway: 10.0.0.1, release_after_secs: 60}
  - {name: other, subnet: 10.0.0.0/24, range: 10.0.0.121-10.0.0.200, gateway: 10.0.0.1, release_after_secs: 10}
  - {name: six, subnet: '2001:db8::/120', release_after_secs: 0}
declarations:
  - {name: '*', network: {pool: small}}
  - {name: 'o*', network: {pool: other}}
  - {name: 's*', network: {interfaces: [{name: eth0, pool: small}, {name: eth1, pool: six}]}}
  - {name: f1, network: {ip: 10.0.0.7/24, gateway: 10.0.0.1}}
";

/// Rows of the database. A transaction is written completely or not at all.
#[derive(Default)]
struct Rows {
    items: BTreeMap<String, Change>,
    revision: u64,
}

impl Rows {
    fn write(&mut self, plan: &Plan) {
        for change in &plan.changes {
            let (key, is_removed) = match change {
                Change::PutPool(stored) => (format!("1 {}", stored.pool.name()), false),
                Change::RemovePool(name) => (format!("1 {name}"), true),
                Change::PutDeclaration(stored) => (format!("2 {}", stored.target), false),
                Change::RemoveDeclaration(name) => (format!("2 {name}"), true),
                Change::PutLease(lease) => (format!("3 {}", lease.address), false),
                Change::RemoveLease(address) => (format!("3 {address}"), true),
            };
            if is_removed {
                self.items.remove(&key);
            } else {
                self.items.insert(key, change.clone());
            }
        }
        self.revision = plan.revision;
    }

    fn load(&self) -> DeclaredState {
        let mut state = DeclaredState::default();
        let changes = self.items.values().cloned().collect();
        state.commit(&Plan { changes, revision: self.revision });
        state
    }
}

/// Point at which the daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    Never,
    BeforeWrite,
    AfterWrite,
}

struct Host {
    random: StdRng,
    rows: Rows,
    state: DeclaredState,
    /// Existing VMs, with the addresses that their guests have.
    guests: BTreeMap<VmName, BTreeSet<IpAddr>>,
    /// Leases whose write was acknowledged, and that were not released since.
    acknowledged: BTreeMap<IpAddr, VmName>,
    now: SystemTime,
    kills: usize,
    exhausted: usize,
}

impl Host {
    fn new(seed: u64) -> Self {
        let Document { pools, declarations } =
            Document::parse(DECLARED, DocumentFormat::Yaml).unwrap();
        let request = ApplyRequest { pools, declarations, ..ApplyRequest::default() };
        let (plan, _) = DeclaredState::default().plan_apply(&request, &[]).unwrap();
        let mut rows = Rows::default();
        rows.write(&plan);
        Self {
            random: StdRng::seed_from_u64(seed),
            state: rows.load(),
            rows,
            guests: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            kills: 0,
            exhausted: 0,
        }
    }

    /// Writes and commits a plan as the daemon does. Returns false if the daemon was killed on the way.
    fn make(&mut self, plan: &Plan) -> bool {
        let kill = match self.random.random_range(0..20) {
            0 => Kill::BeforeWrite,
            1 => Kill::AfterWrite,
            _ => Kill::Never,
        };
        if kill != Kill::BeforeWrite {
            self.rows.write(plan);
        }
        if kill != Kill::Never {
            self.kills += 1;
            self.state = self.rows.load();
            return false;
        }
        self.state.commit(plan);
        true
    }

    /// Configures a VM. A VM that the daemon could not complete is configured after the daemon's next start.
    fn reconcile(&mut self, vm: &VmName) {
        let config = self.state.effective(vm);
        let needs = config.needs();
        let plan = match self.state.plan_leases(vm, &needs) {
            Ok(plan) => plan,
            Err(DeclareError::Exhausted { .. }) => {
                self.exhausted += 1;
                return;
            }
            Err(error) => panic!("{vm}: {error}"),
        };
        if !self.make(&plan) {
            return;
        }
        let held = needs.iter().map(|need| self.state.lease_for(vm, need).unwrap().address);
        let held: BTreeSet<_> = held.collect();
        let request = self.state.network_request(&config).unwrap().unwrap();
        let sent = request.interfaces.iter().flat_map(|one| one.addresses.iter().flatten());
        let sent: BTreeSet<IpAddr> =
            sent.map(|text| text.split_once('/').unwrap().0.parse().unwrap()).collect();
        assert_eq!(held, sent, "{vm}");
        for address in &held {
            self.acknowledged.insert(*address, vm.clone());
        }
        self.guests.insert(vm.clone(), held);
    }

    fn sweep(&mut self) {
        let guests = &self.guests;
        let exists = |lease: &Lease| lease.vm.as_ref().is_some_and(|vm| guests.contains_key(vm));
        let now = self.now;
        let unused_for = |lease: &Lease| {
            let since: SystemTime = lease.unused_since.unwrap().0;
            now.duration_since(since).unwrap()
        };
        let plan = self.state.plan_sweep(Timestamp(now), exists, unused_for);
        for change in &plan.changes {
            let Change::RemoveLease(address) = change else { continue };
            let vm = self.acknowledged.remove(address);
            assert!(vm.is_none_or(|vm| !self.guests.contains_key(&vm)), "{address} is in use");
        }
        self.make(&plan);
    }

    fn step(&mut self) {
        let some = |host: &mut Self| {
            let names: Vec<_> = host.guests.keys().cloned().collect();
            names.choose(&mut host.random).cloned()
        };
        match self.random.random_range(0..100) {
            0..45 => {
                let letter =
                    ["v", "v", "o", "s", "f"].choose(&mut self.random).unwrap().to_string();
                let number = if letter == "f" { 1 } else { self.random.random_range(0..400) };
                let vm: VmName = format!("{letter}{number}").parse().unwrap();
                self.guests.entry(vm.clone()).or_default();
                self.reconcile(&vm);
            }
            45..65 => {
                if let Some(vm) = some(self) {
                    self.guests.remove(&vm);
                }
            }
            65..75 => {
                // A reboot: the guest's addresses are gone, then it is configured again.
                if let Some(vm) = some(self) {
                    self.guests.insert(vm.clone(), BTreeSet::new());
                    self.reconcile(&vm);
                }
            }
            75..80 => {
                // Another name is another VM.
                if let Some(vm) = some(self) {
                    self.guests.remove(&vm);
                    let renamed: VmName =
                        format!("v{}", 400 + self.random.random_range(0..50)).parse().unwrap();
                    self.guests.entry(renamed.clone()).or_default();
                    self.reconcile(&renamed);
                }
            }
            80..95 => {
                self.now += Duration::from_secs(self.random.random_range(1..40));
                self.sweep();
            }
            _ => {
                // The daemon starts again, and looks at every VM.
                self.state = self.rows.load();
                for vm in self.guests.keys().cloned().collect::<Vec<_>>() {
                    self.reconcile(&vm);
                }
            }
        }
    }

    fn check(&self, step: usize) {
        let mut owners = BTreeMap::new();
        for (vm, addresses) in &self.guests {
            for address in addresses {
                let other = owners.insert(address, vm);
                assert_eq!(other, None, "step {step}: {address} belongs to {vm} too");
            }
        }
        for (address, vm) in &self.acknowledged {
            let lease = self.state.leases().get(*address);
            let holder = lease.and_then(|lease| lease.vm.as_ref());
            assert_eq!(holder, Some(vm), "step {step}: the lease of {address} is lost");
        }
        if !step.is_multiple_of(8) {
            return;
        }
        let loaded = self.rows.load();
        assert_eq!(loaded.leases(), self.state.leases(), "step {step}");
        for (name, stored) in self.state.pools() {
            let status = self.state.pool_status(stored);
            assert_eq!(status, loaded.pool_status(stored), "step {step}");
            let statics = self
                .state
                .leases_in(&stored.pool)
                .filter(|lease| !stored.pool.is_in_range(lease.address));
            assert_eq!(
                statics.count(),
                self.state.leases_in(&stored.pool).count()
                    - usize::try_from(status.leased).unwrap()
            );
            let all = stored.pool.all_addresses().count();
            let fixed = "10.0.0.7".parse().unwrap();
            let kept = stored.pool.is_in_range(fixed) && self.state.leases().get(fixed).is_none();
            assert_eq!(
                status.free + status.leased + u64::from(kept),
                all,
                "step {step}: pool {name}"
            );
        }
    }
}

#[test]
fn no_address_is_given_twice_and_no_lease_is_lost_whatever_happens() {
    let (mut kills, mut exhausted) = (0, 0);
    for seed in 0..6 {
        let mut host = Host::new(seed);
        for step in 0..1500 {
            host.step();
            host.check(step);
        }
        // The daemon runs undisturbed until every VM is configured, or its pool is exhausted.
        for vm in host.guests.keys().cloned().collect::<Vec<_>>() {
            for _ in 0..20 {
                let before = host.exhausted;
                host.reconcile(&vm);
                if !host.guests[&vm].is_empty() || host.exhausted > before {
                    break;
                }
            }
            let needs = host.state.effective(&vm).needs();
            let is_applied = !host.guests[&vm].is_empty();
            let reason = host.state.plan_leases(&vm, &needs).err();
            assert!(
                is_applied || matches!(reason, Some(DeclareError::Exhausted { .. })),
                "seed {seed}: {vm}"
            );
        }
        kills += host.kills;
        exhausted += host.exhausted;
    }
    assert!(
        kills > 100 && exhausted > 100,
        "the schedule is too tame: {kills} kills, {exhausted} exhausted"
    );
}
