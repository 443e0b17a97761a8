//! End of leases that no VM needs.

use super::conditions::VmConditions;
use crate::declared::DeclaredStore;
use crate::vm::Registry;
use minions_api::Timestamp;
use minions_declare::DeclaredState;

/// Marks leases that are no longer needed, and ends those whose time is over. Does nothing before the first scan of the
/// socket directory, because every VM would seem to be gone.
pub(super) async fn sweep(store: &DeclaredStore, registry: &Registry, conditions: &VmConditions) {
    let Some(vms) = registry.vms() else { return };
    if store.read(|state| state.leases().is_empty()) {
        return;
    }
    let conditions = conditions.clone();
    let plan = move |state: &DeclaredState| {
        let is_used = |lease: &_| conditions.is_used(state, &vms, lease);
        let plan = state.plan_sweep(Timestamp::now(), is_used);
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
