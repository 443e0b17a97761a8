//! Conditions of VMs: the reconciler writes them, all tasks read them.

use crate::vm::registry::Vms;
use minions_api::declaration::{ConfigCondition, ConfigState};
use minions_api::pool::Lease;
use minions_api::{Timestamp, VmName};
use minions_declare::DeclaredState;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// Agreement of a VM with its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmCondition {
    pub(crate) state: ConfigState,
    pub(super) since: Timestamp,
    pub(super) reason: Option<String>,
    pub(super) generation: u64,
    /// Time at which the current boot of the guest had its configuration for the first time.
    pub(crate) first_applied: Option<Timestamp>,
}

impl VmCondition {
    /// Returns the condition as REST shows it.
    pub(crate) fn shown(&self) -> ConfigCondition {
        let Self { state: _, since, reason, generation, first_applied: _ } = self;
        ConfigCondition { since: *since, reason: reason.clone(), generation: *generation }
    }
}

/// Conditions by VM, and the addresses that the guests are known to have. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct VmConditions(Arc<RwLock<ConditionMaps>>);

#[derive(Debug, Default)]
struct ConditionMaps {
    conditions: BTreeMap<VmName, VmCondition>,
    /// Addresses that the current boot of a guest has. A guest that is missing here may have any of its leases.
    settled: BTreeMap<VmName, Box<[IpAddr]>>,
}

impl VmConditions {
    /// Returns the condition of a VM as REST shows it; `None` if there is nothing to apply.
    pub(crate) fn shown(&self, vm: &VmName) -> Option<(ConfigState, ConfigCondition)> {
        let maps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let condition = maps.conditions.get(vm)?;
        Some((condition.state, condition.shown()))
    }

    /// Returns the condition of a VM, and the time at which its current boot had its configuration for the first time.
    pub(crate) fn get(&self, vm: &VmName) -> Option<VmCondition> {
        let maps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        maps.conditions.get(vm).cloned()
    }

    /// Returns the number of VMs by condition.
    pub(crate) fn figures(&self) -> [(ConfigState, usize); 4] {
        let maps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let count = |state| maps.conditions.values().filter(|one| one.state == state).count();
        [ConfigState::Pending, ConfigState::Applied, ConfigState::Drifted, ConfigState::Failed]
            .map(|state| (state, count(state)))
    }

    /// Reports whether a lease must be kept: its VM exists, and needs the address or may have it.
    pub(crate) fn is_used(&self, state: &DeclaredState, vms: &Vms, lease: &Lease) -> bool {
        let Some(vm) = lease.vm.as_ref().filter(|vm| vms.contains_key(*vm)) else { return false };
        let has = {
            let maps = self.0.read().unwrap_or_else(PoisonError::into_inner);
            maps.settled.get(vm).is_none_or(|addresses| addresses.contains(&lease.address))
        };
        let needs = || {
            let needs = state.effective(vm).needs();
            let held = needs.iter().filter_map(|need| state.lease_for(vm, need));
            held.into_iter().any(|held| held.address == lease.address)
        };
        has || needs()
    }

    /// Sets the condition of a VM. Returns it if its state is another one now.
    pub(super) fn set(
        &self,
        vm: &VmName,
        state: ConfigState,
        reason: Option<String>,
        generation: u64,
    ) -> Option<VmCondition> {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = maps.conditions.get(vm);
        let is_other = before.is_none_or(|before| before.state != state);
        let since = before.filter(|_| !is_other).map_or_else(Timestamp::now, |one| one.since);
        let first_applied = before.and_then(|before| before.first_applied);
        let first_applied = match state {
            ConfigState::Applied => first_applied.or_else(|| Some(Timestamp::now())),
            ConfigState::Pending | ConfigState::Drifted | ConfigState::Failed => first_applied,
        };
        let condition = VmCondition { state, since, reason, generation, first_applied };
        maps.conditions.insert(vm.clone(), condition.clone());
        is_other.then_some(condition)
    }

    /// Returns the state of a VM's condition.
    pub(super) fn state(&self, vm: &VmName) -> Option<ConfigState> {
        let maps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        maps.conditions.get(vm).map(|condition| condition.state)
    }

    /// Removes the condition of a VM without a configuration. Its guest keeps its addresses.
    pub(super) fn clear(&self, vm: &VmName) {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        maps.conditions.remove(vm);
    }

    /// Records the addresses that a guest has; `None` if it may have any of its leases.
    pub(super) fn settle(&self, vm: &VmName, addresses: Option<Box<[IpAddr]>>) {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match addresses {
            Some(addresses) => _ = maps.settled.insert(vm.clone(), addresses),
            None => _ = maps.settled.remove(vm),
        }
    }

    /// Records that the guest may have lost its configuration. `ready_at` is the time at which its current boot became
    /// ready: a configuration before it was one of an earlier boot.
    pub(super) fn unsettled(&self, vm: &VmName, ready_at: Option<Timestamp>) {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        maps.settled.remove(vm);
        if let Some(condition) = maps.conditions.get_mut(vm) {
            let is_current =
                |applied: &Timestamp| ready_at.is_some_and(|ready| applied.0 >= ready.0);
            condition.first_applied = condition.first_applied.filter(is_current);
        }
    }

    /// Forgets a VM that is gone.
    pub(super) fn forget(&self, vm: &VmName) {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        maps.conditions.remove(vm);
        maps.settled.remove(vm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_first_configuration_of_a_boot_is_kept_until_another_boot_is_ready() {
        let (conditions, vm) = (VmConditions::default(), "web-1".parse().unwrap());
        conditions.set(&vm, ConfigState::Applied, None, 1);
        let first_applied = || conditions.get(&vm).and_then(|condition| condition.first_applied);
        let first = first_applied().unwrap();
        let ready = |offset: i32| {
            let apart = Duration::from_secs(u64::from(offset.unsigned_abs()));
            Some(Timestamp(if offset < 0 { first.0 - apart } else { first.0 + apart }))
        };
        // The agent was restarted: the boot is the same.
        conditions.unsettled(&vm, ready(-1));
        conditions.set(&vm, ConfigState::Pending, None, 1);
        conditions.set(&vm, ConfigState::Applied, None, 1);
        assert_eq!(first_applied(), Some(first));
        conditions.unsettled(&vm, ready(1));
        assert_eq!(first_applied(), None);
        conditions.set(&vm, ConfigState::Applied, None, 1);
        conditions.clear(&vm);
        assert_eq!(first_applied(), None, "nothing is declared");
    }
}
