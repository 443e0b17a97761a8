//! Requests to guests to run their restore steps.

use super::declared_settings::{DeclaredNetwork, DeclaredSettings};
use super::guest_text::{clipped, clipped_to};
use crate::clock::unix_ms;
use crate::config::RestorePolicy;
use crate::declared::DeclaredStore;
use minions_api::restore::RestoreReport;
use minions_api::{Timestamp, VmName};
use minions_proto::message::{
    ChangeNetwork, EntropyBytes, InstanceId, RestoreOutcome, RestoreRequest, RestoreStep,
    RestoreStepKind,
};
use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Number of random bytes for a guest: the kernel's generator has a key of 32 bytes.
const ENTROPY_LEN: usize = 64;

/// Limit of VMs whose networks are remembered, and of the length of one network as JSON, in bytes.
const MAX_NETWORKS: usize = 4096;
const MAX_NETWORK_LEN: usize = 16 * 1024;

/// Limits of what is kept of a guest's report: steps, and bytes of one text.
const KEPT_STEPS: usize = 64;
const KEPT_DETAIL: usize = 512;

/// Last network that clients have set, by VM name. It outlives the VMM: a restored guest gets the network of its
/// name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastNetworks(Arc<Mutex<BTreeMap<VmName, KnownNetwork>>>);

/// Networks of one VM.
#[derive(Debug, Clone, Default)]
struct KnownNetwork {
    kept: Option<ChangeNetwork>,
    /// Change that waits for its confirmation, with its id.
    unconfirmed: Option<(String, ChangeNetwork)>,
}

impl LastNetworks {
    fn networks(&self) -> MutexGuard<'_, BTreeMap<VmName, KnownNetwork>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the network of a VM; one that waits for the confirmation of `pending` only after
    /// [`confirmed`](Self::confirmed). Beyond the limits, it is forgotten instead.
    pub(crate) fn set(&self, vm: &VmName, network: ChangeNetwork, pending: Option<String>) {
        let mut networks = self.networks();
        let len = serde_json::to_vec(&network).map_or(usize::MAX, |json| json.len());
        let has_room = networks.len() < MAX_NETWORKS || networks.contains_key(vm);
        if len > MAX_NETWORK_LEN || !has_room {
            networks.remove(vm);
            return;
        }
        let network = ChangeNetwork { confirm_within_ms: None, dry_run: None, ..network };
        let known = networks.entry(vm.clone()).or_default();
        match pending {
            Some(id) => known.unconfirmed = Some((clipped(id), network)),
            None => *known = KnownNetwork { kept: Some(network), unconfirmed: None },
        }
    }

    /// Records that the change with this id was confirmed.
    pub(crate) fn confirmed(&self, vm: &VmName, id: &str) {
        let mut networks = self.networks();
        let Some(known) = networks.get_mut(vm) else { return };
        if let Some((_, network)) = known.unconfirmed.take_if(|(pending, _)| pending == id) {
            known.kept = Some(network);
        }
    }

    fn of(&self, vm: &VmName) -> Option<ChangeNetwork> {
        self.networks().get(vm).and_then(|known| known.kept.clone())
    }
}

/// Restore steps of one VM.
#[derive(Debug, Clone)]
pub(crate) struct RestorePlan {
    pub(crate) policy: Arc<RestorePolicy>,
    pub(crate) networks: LastNetworks,
    pub(crate) declared: DeclaredStore,
}

impl RestorePlan {
    /// Returns the time after which the steps of `vm` that still run count as failed.
    pub(super) fn steps_limit(&self, vm: &VmName) -> Duration {
        let declared = self.declared.read(|state| DeclaredSettings::of(state, vm).restore);
        declared.as_ref().unwrap_or(&self.policy).steps_limit()
    }

    /// Returns the request for the next generation of `parent`.
    ///
    /// Its random numbers are the kernel's: the generator of this process repeats them if the host is itself a VM that was
    /// restored or cloned, and whose kernel has been reseeded since.
    ///
    /// # Errors
    ///
    /// The kernel has no random numbers.
    pub(super) fn request(
        &self,
        vm: &VmName,
        parent: InstanceId,
    ) -> Result<RestoreRequest, SysError> {
        let declared = self.declared.read(|state| DeclaredSettings::of(state, vm));
        let policy = declared.restore.as_ref().unwrap_or(&self.policy);
        let RestorePolicy { steps, required, network, hook_timeout, .. } = policy;
        let is_later = declared.network == DeclaredNetwork::Later;
        let runs = |step: &RestoreStepKind| *step != RestoreStepKind::Network || !is_later;
        let has = |step| steps.contains(&step) && runs(&step);
        let names = |steps: &[RestoreStepKind]| {
            let steps = steps.iter().filter(|step| runs(step));
            steps.map(|step| step.name().to_owned()).collect::<Vec<_>>()
        };
        let (mut bytes, mut id) = (vec![0; ENTROPY_LEN], [0; 16]);
        SysRng.try_fill_bytes(&mut bytes)?;
        SysRng.try_fill_bytes(&mut id)?;
        let network = match declared.network {
            DeclaredNetwork::Known(network) => Some(*network),
            DeclaredNetwork::Later => None,
            DeclaredNetwork::Undeclared => network.clone().or_else(|| self.networks.of(vm)),
        };
        let hostname = declared.hostname.unwrap_or_else(|| policy.hostname_of(vm));
        Ok(RestoreRequest {
            parent,
            instance_id: uuid::Builder::from_random_bytes(id).into_uuid().to_string().into(),
            entropy: EntropyBytes::try_from(bytes).expect("64 bytes are within the limits"),
            time_unix_ms: unix_ms(SystemTime::now()),
            steps: names(steps),
            required: names(required),
            hostname: has(RestoreStepKind::Hostname).then_some(hostname),
            network: network.filter(|_| has(RestoreStepKind::Network)),
            hook_timeout_ms: hook_timeout
                .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

/// Returns the report of a guest, truncated to the bounds.
pub(super) fn report(restored: RestoreOutcome) -> RestoreReport {
    let RestoreOutcome { state, generation, instance_id, parent_instance_id, steps } = restored;
    let bounded = |step: RestoreStep| RestoreStep {
        step: clipped(step.step),
        detail: clipped_to(KEPT_DETAIL, step.detail),
        ..step
    };
    RestoreReport {
        state,
        generation,
        instance_id: clipped(instance_id.into()),
        parent_instance_id: clipped(parent_instance_id.into()),
        steps: steps.into_iter().take(KEPT_STEPS).map(bounded).collect(),
        at: Timestamp::now(),
    }
}

/// Describes the steps of a report that failed, for people.
pub(super) fn failures(report: &RestoreReport) -> String {
    let failed = report.steps.iter().filter(|step| !step.ok);
    let texts: Vec<_> = failed.map(|step| format!("{}: {}", step.step, step.detail)).collect();
    if texts.is_empty() { "no step".to_owned() } else { texts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_new_random_bytes_and_only_what_its_steps_need() {
        let vm: VmName = "web-1".parse().unwrap();
        let networks = LastNetworks::default();
        let dns = Some(vec!["1.1.1.1".to_owned()]);
        let network = ChangeNetwork { dns, confirm_within_ms: Some(9), ..Default::default() };
        networks.set(&vm, network, Some("change".into()));
        networks.confirmed(&vm, "another");
        assert_eq!(networks.of(&vm), None, "not confirmed");
        networks.confirmed(&vm, "change");
        let (declared, _thread) = DeclaredStore::open(None).unwrap();
        let mut plan = RestorePlan { policy: Arc::default(), networks, declared };
        let request = |plan: &RestorePlan, vm: &VmName| plan.request(vm, "p".into()).unwrap();
        let (first, second) = (request(&plan, &vm), request(&plan, &vm));
        assert_ne!(first.entropy, second.entropy);
        assert_ne!(first.instance_id, second.instance_id);
        assert_eq!((first.hostname.as_deref(), first.network.is_some()), (None, false));
        assert_eq!(first.steps, ["entropy", "clock"]);
        first.validate().unwrap();
        Arc::make_mut(&mut plan.policy).steps = RestoreStepKind::ALL.to_vec();
        let all = request(&plan, &vm);
        assert_eq!(all.hostname.as_deref(), Some("web-1"));
        assert!(all.network.as_ref().is_some_and(|network| network.confirm_within_ms.is_none()));
        all.validate().unwrap();
        let other = request(&plan, &"web-2".parse().unwrap());
        assert_eq!(other.network, None, "the network of another VM");
    }

    #[tokio::test]
    async fn a_declared_vm_gets_its_declared_network_and_not_the_last_one_by_hand() {
        let vm: VmName = "web-1".parse().unwrap();
        let networks = LastNetworks::default();
        let dns = Some(vec!["1.1.1.1".to_owned()]);
        networks.set(&vm, ChangeNetwork { dns, ..Default::default() }, None);
        let (declared, _thread) = DeclaredStore::open(None).unwrap();
        let steps = vec![RestoreStepKind::Hostname, RestoreStepKind::Network];
        let policy = RestorePolicy { required: steps.clone(), steps, ..Default::default() };
        let plan = RestorePlan { policy: Arc::new(policy), networks, declared: declared.clone() };
        let request = || plan.request(&vm, "p".into()).unwrap();
        let by_hand = request();
        assert_eq!(by_hand.network.unwrap().dns.unwrap(), ["1.1.1.1"]);
        let apply = r#"{"pools": [{"name": "lan", "subnet": "10.0.0.0/24", "dns": ["10.0.0.1"]}],
            "declarations": [{"name": "web-1", "hostname": "first", "network": {"pool": "lan"}}]}"#;
        let apply: minions_api::declaration::ApplyRequest = serde_json::from_str(apply).unwrap();
        declared.change(move |state| Ok((state.plan_apply(&apply, &[])?.0, ()))).await.unwrap();
        let later = request();
        assert_eq!((later.network, later.hostname.as_deref()), (None, Some("first")));
        assert_eq!(
            (later.steps, later.required),
            (vec!["hostname".into()], vec!["hostname".into()])
        );
        let name = vm.clone();
        let lease = move |state: &minions_declare::DeclaredState| {
            Ok((state.plan_leases(&name, &state.effective(&name).needs())?, ()))
        };
        declared.change(lease).await.unwrap();
        let leased = request();
        let network = leased.network.clone().unwrap();
        assert_eq!(network.interfaces[0].addresses, Some(vec!["10.0.0.1/24".to_owned()]));
        assert_eq!((network.dns.unwrap(), leased.steps.len()), (vec!["10.0.0.1".to_owned()], 2));
        let policy = r#"{"declarations": [{"name": "web-*",
            "restore": {"steps": ["clock", "hostname"], "required": ["clock"], "hook_timeout_ms": 7}}]}"#;
        let policy: minions_api::declaration::ApplyRequest = serde_json::from_str(policy).unwrap();
        declared.change(move |state| Ok((state.plan_apply(&policy, &[])?.0, ()))).await.unwrap();
        let own = request();
        assert_eq!((own.steps, own.network), (vec!["clock".into(), "hostname".into()], None));
        assert_eq!((own.required, own.hook_timeout_ms), (vec!["clock".into()], Some(7)));
        leased.validate().unwrap();
    }

    #[test]
    fn the_memory_of_networks_is_bounded() {
        let networks = LastNetworks::default();
        let vm: VmName = "web-1".parse().unwrap();
        let search = |len: usize| ChangeNetwork {
            search: Some(vec!["x".repeat(len)]),
            ..Default::default()
        };
        networks.set(&vm, search(10), None);
        networks.set(&vm, search(MAX_NETWORK_LEN), None);
        assert_eq!(networks.of(&vm), None);
        for number in 0..=MAX_NETWORKS {
            networks.set(&format!("vm-{number}").parse().unwrap(), search(1), None);
        }
        assert_eq!(networks.networks().len(), MAX_NETWORKS);
    }

    #[test]
    fn a_report_of_a_guest_is_truncated() {
        let step = RestoreStep {
            step: "s".repeat(9999),
            ok: false,
            detail: "d".repeat(9999),
            duration_ms: 0,
        };
        let report = report(RestoreOutcome {
            state: minions_proto::message::RestoreState::Done,
            generation: 1,
            instance_id: "i".repeat(9999).into(),
            parent_instance_id: "p".repeat(9999).into(),
            steps: vec![step; 1000],
        });
        assert_eq!((report.steps.len(), report.steps[0].detail.len()), (KEPT_STEPS, KEPT_DETAIL));
        assert!(report.steps[0].step.len() <= 256 && report.instance_id.len() <= 256);
    }
}
