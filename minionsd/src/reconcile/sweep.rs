//! End of leases: of those that no VM needs, and by request.

use super::conditions::VmConditions;
use super::handle::Reconciler;
use super::lease_ages::LeaseAges;
use crate::declared::{DeclaredStore, StoreError};
use crate::vm::Registry;
use minions_api::Timestamp;
use minions_api::pool::Lease;
use minions_declare::DeclaredState;
use std::net::IpAddr;

/// Marks leases that are no longer needed, and ends those whose time is over. Does nothing before the first scan of the
/// socket directory, because every VM would seem to be gone.
pub(super) async fn sweep(
    store: &DeclaredStore,
    registry: &Registry,
    conditions: &VmConditions,
    ages: LeaseAges,
) {
    if registry.vms().is_none() || store.read(|state| state.leases().is_empty()) {
        return;
    }
    let (registry, conditions) = (registry.clone(), conditions.clone());
    let plan = move |state: &DeclaredState| {
        // As late as possible: the change may wait, and VMs come meanwhile.
        let vms = registry.vms().unwrap_or_default();
        let is_used = |lease: &_| conditions.is_used(state, &vms, lease);
        let plan = state.plan_sweep(Timestamp::now(), is_used, |lease| ages.of(lease));
        ages.planned(state, &plan);
        let changes = plan.changes.len();
        Ok((plan, changes))
    };
    match store.change(plan).await {
        Ok(0) => {}
        Ok(changes) => {
            tracing::info!(changes, "leases of VMs that are gone were marked or released")
        }
        Err(error) => tracing::warn!(%error, "leases could not be released"),
    }
}

/// Ends the lease of an address, in the subnet of a pool if one is given, if no VM may have the address. Returns the lease as
/// it was.
pub(crate) async fn release(
    store: &DeclaredStore,
    registry: &Registry,
    conditions: &VmConditions,
    reconciler: Reconciler,
    (pool, address): (Option<String>, IpAddr),
) -> Result<Lease, StoreError> {
    let (registry, conditions) = (registry.clone(), conditions.clone());
    let plan = move |state: &DeclaredState| {
        // As late as possible: the change may wait, and VMs come meanwhile.
        let vms = registry.vms();
        let is_used =
            |lease: &Lease| vms.as_ref().is_none_or(|vms| conditions.is_used(state, vms, lease));
        state.plan_release(pool.as_deref(), address, is_used)
    };
    let released = move |lease: Lease, _: &DeclaredState| {
        reconciler.lease_changed(&lease);
        lease
    };
    store.change_and_read(plan, released).await
}
