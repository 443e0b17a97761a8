//! Settings of a VM's declarations that a restore needs before the reconciler gets its turn.

use minions_api::VmName;
use minions_declare::{DeclaredState, EffectiveConfig};
use minions_proto::message::ChangeNetwork;

/// Network that declarations give a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeclaredNetwork {
    /// No declaration has network settings for the VM.
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
        Self { network, hostname: config.hostname.map(|field| field.value) }
    }
}

fn has_network(config: &EffectiveConfig) -> bool {
    let EffectiveConfig { addressing, dns, routes, search, mtu, .. } = config;
    addressing.is_some() || dns.is_some() || routes.is_some() || search.is_some() || mtu.is_some()
}
