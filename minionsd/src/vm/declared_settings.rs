//! Settings of a VM's declarations that its supervisor uses: for a restore, before the reconciler gets its turn, and for the
//! clock.

use crate::config::RestorePolicy;
use minions_api::VmName;
use minions_declare::{DeclaredState, EffectiveConfig};
use minions_proto::message::ChangeNetwork;
use std::time::Duration;

/// Network that declarations give a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeclaredNetwork {
    /// The declarations of the VM have no network settings.
    Undeclared,
    /// An address is still to be leased, or declarations contradict each other: the reconciler handles both when the VM is
    /// ready.
    Later,
    /// The network.
    Known(Box<ChangeNetwork>),
}

/// Settings that declarations give a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeclaredSettings {
    pub(super) network: DeclaredNetwork,
    pub(super) hostname: Option<String>,
    /// Restore steps.
    pub(super) restore: Option<RestorePolicy>,
}

impl DeclaredSettings {
    /// Returns the settings of a VM.
    pub(super) fn of(state: &DeclaredState, vm: &VmName) -> Self {
        let config = state.effective(vm);
        let network = if has_network(&config) {
            match state.network_request(&config) {
                Ok(Some(request)) => DeclaredNetwork::Known(Box::new(request.into())),
                Ok(None) | Err(_) => DeclaredNetwork::Later,
            }
        } else {
            DeclaredNetwork::Undeclared
        };
        let restore = config.restore.as_ref().and_then(|field| {
            let policy = RestorePolicy::declared(&field.value);
            policy.inspect_err(|error| tracing::error!(%vm, %error, "declared restore steps")).ok()
        });
        Self { network, hostname: config.hostname.map(|field| field.value), restore }
    }
}

/// Returns the clock limit of a VM: the declared one, or else `global`. `None`: its clock is never set.
pub(super) fn clock_limit(
    state: &DeclaredState,
    vm: &VmName,
    global: Option<Duration>,
) -> Option<Duration> {
    match state.declarations().clock_limit_ms(vm) {
        None => global,
        Some(0) => None,
        Some(ms) => Some(Duration::from_millis(ms)),
    }
}

fn has_network(config: &EffectiveConfig) -> bool {
    let EffectiveConfig { addressing, dns, routes, search, mtu, .. } = config;
    addressing.is_some() || dns.is_some() || routes.is_some() || search.is_some() || mtu.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_clock_limit_has_precedence_and_zero_turns_it_off() {
        let mut state = DeclaredState::default();
        let request = r#"{"declarations": [
            {"name": "off-*", "clock_limit_ms": 0}, {"name": "own-*", "clock_limit_ms": 250}]}"#;
        let request = serde_json::from_str(request).unwrap();
        let (plan, _) = state.plan_apply(&request, &[]).unwrap();
        state.commit(&plan);
        let global = Some(Duration::from_secs(1));
        let limit = |vm: &str| clock_limit(&state, &vm.parse().unwrap(), global);
        assert_eq!(limit("other"), global);
        assert_eq!(limit("off-1"), None);
        assert_eq!(limit("own-1"), Some(Duration::from_millis(250)));
    }
}
