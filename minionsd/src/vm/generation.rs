//! Generations of a guest as the daemon sees them: rewinds within one VMM, the owners of instance ids, and the instances
//! that are known.

use minions_api::VmName;
use minions_proto::message::{AgentInfo, BootId, InstanceId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Limit of instances of one VM whose counts are remembered; the one that answered least recently is forgotten first.
const MAX_INSTANCES: usize = 8;

/// Numbers of health checks that the instances of one VM have reported. An agent raises the number with each health
/// check, and the number is a part of a snapshot: one that does not grow shows that the guest went back to a snapshot
/// while its VMM continued to run (`loadvm`).
#[derive(Debug, Default)]
pub(super) struct ProbeCounts(VecDeque<(InstanceId, u64)>);

impl ProbeCounts {
    /// Records the answer of an agent to a health check with a token. Reports whether the guest went back.
    pub(super) fn is_rewound(&mut self, agent: &AgentInfo) -> bool {
        let Some(count) = agent.probe_count.filter(|count| *count > 0) else { return false };
        let known = self.0.iter().position(|(id, _)| *id == agent.instance_id);
        let known = known.and_then(|at| self.0.remove(at)).map_or(0, |(_, known)| known);
        if self.0.len() == MAX_INSTANCES {
            self.0.pop_front();
        }
        self.0.push_back((agent.instance_id.clone(), count.max(known)));
        count <= known
    }
}

/// Names of the VMs by the instance ids that they reported last. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct InstanceOwners(Arc<Mutex<BTreeMap<VmName, InstanceId>>>);

impl InstanceOwners {
    fn owners(&self) -> MutexGuard<'_, BTreeMap<VmName, InstanceId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the instance of `vm`.
    pub(super) fn set(&self, vm: &VmName, instance: &InstanceId) {
        let mut owners = self.owners();
        if owners.get(vm) != Some(instance) {
            owners.insert(vm.clone(), instance.clone());
        }
    }

    /// Forgets the instance of `vm`, which is gone or stale.
    pub(super) fn remove(&self, vm: &VmName) {
        self.owners().remove(vm);
    }

    /// Returns a VM other than `vm` that reported this instance.
    pub(super) fn other_owner(&self, instance: &InstanceId, vm: &VmName) -> Option<VmName> {
        let owners = self.owners();
        owners
            .iter()
            .find(|(name, id)| *id == instance && *name != vm)
            .map(|(name, _)| name.clone())
    }
}

/// Limit of VMs whose instances are known; beyond it, those that come first by their names are forgotten.
const MAX_KNOWN: usize = 4096;

/// Instances that answered last, by VM name. They outlive the VMM, whose socket is another one after a restore. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub(super) struct LastInstances(Arc<Mutex<BTreeMap<VmName, LastInstance>>>);

/// Guest of a VM that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastInstance {
    boot: BootId,
    pub(super) instance: InstanceId,
}

impl LastInstances {
    /// Records the agent of `vm`, whose ids are short, and returns the instance before.
    pub(super) fn replace(&self, vm: &VmName, agent: &AgentInfo) -> Option<LastInstance> {
        let (boot, instance) = (agent.boot_id.clone(), agent.instance_id.clone());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert(vm.clone(), LastInstance { boot, instance });
        if known.len() > MAX_KNOWN {
            known.pop_first();
        }
        before
    }
}

impl LastInstance {
    /// Reports whether the agent is a later generation of the same boot. Only a generation has a parent: an agent that
    /// was restarted has none. The parent need not be this instance: there may have been other generations since, or the
    /// guest went back to an earlier one.
    pub(super) fn was_restored_as(&self, agent: &AgentInfo) -> bool {
        self.boot == agent.boot_id
            && self.instance != agent.instance_id
            && agent.parent_instance_id.is_some()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use minions_proto::message::Features;

    /// Returns the description of an agent of the boot `b`.
    pub(in crate::vm) fn agent(instance: &str, probe_count: u64) -> AgentInfo {
        AgentInfo {
            name: "a".into(),
            version: "1".into(),
            protocol: 2,
            features: Features::default(),
            boot_id: "b".into(),
            instance_id: instance.into(),
            allowed: None,
            generation: Some(0),
            parent_instance_id: None,
            probe_count: Some(probe_count),
            restore: None,
        }
    }

    #[test]
    fn a_known_instance_was_restored_if_a_generation_of_its_boot_answers() {
        let known = LastInstances::default();
        let vm: VmName = "web".parse().unwrap();
        assert_eq!(known.replace(&vm, &agent("first", 1)), None);
        let before = known.replace(&vm, &agent("second", 1)).unwrap();
        assert_eq!(before.instance, "first".into());
        let next = AgentInfo { parent_instance_id: Some("first".into()), ..agent("second", 1) };
        assert!(before.was_restored_as(&next));
        assert!(!before.was_restored_as(&agent("second", 1)), "the agent was restarted");
        let same = AgentInfo { instance_id: "first".into(), ..next.clone() };
        assert!(!before.was_restored_as(&same));
        let rebooted = AgentInfo { boot_id: "another".into(), ..next };
        assert!(!before.was_restored_as(&rebooted));
        for number in 0..=MAX_KNOWN {
            known.replace(&format!("vm-{number}").parse().unwrap(), &agent("x", 1));
        }
        assert_eq!(known.0.lock().unwrap().len(), MAX_KNOWN);
    }

    #[test]
    fn a_number_that_does_not_grow_shows_a_rewind() {
        let mut counts = ProbeCounts::default();
        // Other daemons raise the number, too.
        for (instance, count, is_rewound) in [
            ("a", 1, false),
            ("a", 5, false),
            ("a", 5, true),
            ("a", 6, false),
            ("b", 1, false),
            // Back to a snapshot of the instance before.
            ("a", 4, true),
            // And to the same snapshot again.
            ("a", 4, true),
            ("b", 2, false),
        ] {
            assert_eq!(
                counts.is_rewound(&agent(instance, count)),
                is_rewound,
                "{instance} {count}"
            );
        }
        assert!(!counts.is_rewound(&agent("base", 0)), "without a token, nothing is counted");
        for number in 0..100 {
            assert!(!counts.is_rewound(&agent(&format!("i{number}"), 1)));
        }
        assert_eq!(counts.0.len(), MAX_INSTANCES);
    }

    #[test]
    fn a_snapshot_that_is_loaded_again_and_again_is_noticed_each_time() {
        let mut counts = ProbeCounts::default();
        assert!(!counts.is_rewound(&agent("saved", 9)));
        for number in 0..3 * MAX_INSTANCES {
            assert!(!counts.is_rewound(&agent(&format!("next-{number}"), 1)));
            assert!(counts.is_rewound(&agent("saved", 9)), "{number}");
        }
    }

    #[test]
    fn the_owner_of_an_instance_is_another_vm() {
        let owners = InstanceOwners::default();
        let [web, db] = ["web", "db"].map(|name| name.parse::<VmName>().unwrap());
        owners.set(&web, &"one".into());
        assert_eq!(owners.other_owner(&"one".into(), &db), Some(web.clone()));
        assert_eq!(owners.other_owner(&"one".into(), &web), None);
        owners.remove(&web);
        assert_eq!(owners.other_owner(&"one".into(), &db), None);
    }
}
