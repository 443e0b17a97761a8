//! Configuration of a VM, reduced to what decides about a new attempt.

use minions_api::VmName;
use minions_api::declaration::DriftPolicy;
use minions_api::pool::LeaseKind;
use minions_declare::{DeclaredState, EffectiveConfig, LeaseNeed};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Configuration that a VM must have. Two values differ if the guest must be compared again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WantedConfig {
    /// Digest of all settings of the guest, with those of its pools and the VM's reservations.
    digest: u64,
    /// Reaction to drift.
    pub(super) drift: DriftPolicy,
    /// Highest revision of the declarations and pools.
    pub(super) generation: u64,
}

impl WantedConfig {
    /// Returns the configuration of a VM; `None` if there is nothing to apply.
    pub(super) fn of(state: &DeclaredState, vm: &VmName) -> Option<Self> {
        let config = state.effective(vm);
        if !has_settings(&config) {
            return None;
        }
        let EffectiveConfig { hostname, addressing, dns, routes, search, mtu, verify, .. } =
            &config;
        let mut hasher = DefaultHasher::new();
        // The formatted text is as different as the values.
        format!("{hostname:?} {addressing:?} {dns:?} {routes:?} {search:?} {mtu:?} {verify:?}")
            .hash(&mut hasher);
        for need in config.needs() {
            let LeaseNeed::Pool { pool, .. } = &need else { continue };
            let lease = state.lease_for(vm, &need);
            let reserved = lease.filter(|lease| lease.kind == LeaseKind::Reserved);
            reserved.map(|lease| lease.address).hash(&mut hasher);
            let declared = state.pools().get(pool).map(|stored| stored.pool.declared());
            let given = declared.map(|pool| (&pool.subnet, &pool.gateway, &pool.dns, &pool.mtu));
            format!("{given:?}").hash(&mut hasher);
        }
        let drift = config.drift_policy();
        Some(Self { digest: hasher.finish(), drift, generation: state.generation(&config) })
    }

    /// Reports whether the guest must be compared again after a change from `before`.
    pub(super) fn differs_from(&self, before: &Self) -> bool {
        self.digest != before.digest
    }
}

fn has_settings(config: &EffectiveConfig) -> bool {
    let EffectiveConfig { hostname, addressing, dns, routes, search, mtu, .. } = config;
    hostname.is_some()
        || addressing.is_some()
        || dns.is_some()
        || routes.is_some()
        || search.is_some()
        || mtu.is_some()
}

/// Reports whether declarations have settings for a VM's guest.
pub(crate) fn is_declared(state: &DeclaredState, vm: &VmName) -> bool {
    WantedConfig::of(state, vm).is_some()
}
