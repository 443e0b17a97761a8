//! Attempt on a VM: lease the addresses, then compare the guest or change it.

use crate::agent::{AgentRefusal, CallError, Lane, TransportError};
use crate::declared::{DeclaredStore, StoreError};
use crate::vm::Vm;
use crate::vm::guest_text::clipped;
use crate::vm::look_slot::LookRequest;
use crate::vm::network_differences::differences;
use futures_util::FutureExt;
use minions_api::Timestamp;
use minions_api::network::{InterfaceRequest, NetworkRequest};
use minions_declare::{DeclareError, DeclaredState, EffectiveConfig};
use minions_proto::ErrorCode;
use minions_proto::message::{ChangeNetwork, ConfigureNetwork, Feature};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time of an attempt: a change, its checks, and its rollback.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kind of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptKind {
    /// Changes the guest where it differs.
    Apply,
    /// Compares only.
    Look,
}

impl AttemptKind {
    /// Reports whether the guest stays unchanged.
    pub(super) fn is_look(self) -> bool {
        match self {
            Self::Apply => false,
            Self::Look => true,
        }
    }
}

/// Addresses of a guest's interfaces, by name or link-layer address as in the request; empty for the default one.
/// Lists, because a guest has few: maps take ten times the memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InterfaceAddresses(Vec<(String, Vec<IpAddr>)>);

impl InterfaceAddresses {
    /// Adopts the addresses of the interfaces that a later request names. Others keep theirs.
    pub(super) fn adopt(&mut self, later: Self) {
        let is_later = |name: &String| later.0.iter().any(|(other, _)| other == name);
        self.0.retain(|(name, _)| !is_later(name));
        self.0.extend(later.0);
    }

    /// Returns the addresses of all interfaces.
    pub(super) fn all(&self) -> Box<[IpAddr]> {
        self.0.iter().flat_map(|(_, addresses)| addresses).copied().collect()
    }

    /// Forgets all addresses.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AttemptResult {
    /// The guest has the configuration.
    Applied {
        /// False if nothing had to be changed.
        changed: bool,
        /// Addresses of the interfaces for which the request has some. Others keep theirs.
        addresses: InterfaceAddresses,
        /// Request of the regular look; `None` if the agent cannot compare.
        look: Option<LookRequest>,
    },
    /// The guest has other settings.
    Drifted {
        /// The differences.
        reason: String,
        /// Request of the regular look.
        look: Option<LookRequest>,
    },
    /// Nothing is declared any more.
    Nothing,
    /// The VM cannot be reached. It is tried again when it is ready.
    Unreachable(String),
    /// The configuration cannot be applied.
    Failed(String),
}

/// Failure of an attempt.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Declared(#[from] DeclareError),
    #[error("{}", call_message(.0))]
    Call(#[from] CallError),
}

/// Makes an attempt.
pub(super) async fn attempt(vm: Vm, store: DeclaredStore, kind: AttemptKind) -> AttemptResult {
    match reconcile(&vm, &store, kind).await {
        Ok(result) => result,
        Err(AttemptError::Call(CallError::Transport(error))) if is_unreachable(&error) => {
            AttemptResult::Unreachable(clipped(error.to_string()))
        }
        Err(error) => AttemptResult::Failed(clipped(error.to_string())),
    }
}

/// Waits for an attempt. A panic is the failure of this attempt.
pub(super) async fn guarded(attempt: impl Future<Output = AttemptResult>) -> AttemptResult {
    AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("an attempt to configure a VM panicked");
        AttemptResult::Failed("bug in minionsd: the attempt panicked; see the log".to_owned())
    })
}

fn is_unreachable(error: &TransportError) -> bool {
    matches!(error, TransportError::Unreachable { .. })
}

async fn reconcile(
    vm: &Vm,
    store: &DeclaredStore,
    kind: AttemptKind,
) -> Result<AttemptResult, AttemptError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (change, result) = compare_or_change(vm, store, kind, deadline).await?;
        let duplicate = result.as_ref().err().zip(change.as_ref());
        let duplicate = duplicate.and_then(|(error, change)| duplicate_in(error, change));
        match duplicate {
            Some(address) if quarantine(store, vm, address).await? => {}
            Some(_) | None => return Ok(result?),
        }
    }
}

/// Puts an address that another host on the link has aside, if it is from a pool, so that the VM gets another one.
async fn quarantine(store: &DeclaredStore, vm: &Vm, address: IpAddr) -> Result<bool, StoreError> {
    let name = vm.name().clone();
    let plan = move |state: &DeclaredState| {
        let plan = state.plan_quarantine(&name, address, Timestamp::now());
        let is_planned = !plan.changes.is_empty();
        Ok((plan, is_planned))
    };
    let is_done = store.change(plan).await?;
    if is_done {
        tracing::warn!(vm = %vm.name(), %address, "another host on the link has the address; the VM gets another one");
    }
    Ok(is_done)
}

/// Returns the address of the request that another host has, if that is why the agent refused it.
fn duplicate_in(error: &CallError, change: &ChangeNetwork) -> Option<IpAddr> {
    let CallError::Refused(AgentRefusal::Answer(error)) = error else { return None };
    let field = error.field.as_ref().filter(|_| error.code == Some(ErrorCode::NetworkFailed))?;
    let mut addresses = change.interfaces.iter().enumerate().flat_map(|(at, interface)| {
        let addresses = interface.addresses.iter().flatten().enumerate();
        addresses.map(move |(index, text)| (format!("interfaces[{at}].addresses[{index}]"), text))
    });
    let (_, text) = addresses.find(|(path, _)| path == field)?;
    text.split('/').next()?.parse().ok()
}

/// Makes one comparison or change. Also returns the request, if the agent can refuse it for one of its addresses.
async fn compare_or_change(
    vm: &Vm,
    store: &DeclaredStore,
    kind: AttemptKind,
    deadline: Instant,
) -> Result<(Option<ChangeNetwork>, Result<AttemptResult, CallError>), AttemptError> {
    let config = store.read(|state| state.effective(vm.name()));
    lease(store, &config).await?;
    let request = store.read(|state| state.network_request(&config));
    let Some(request) = request.map_err(DeclareError::Invalid)? else {
        return Ok((None, Ok(AttemptResult::Nothing)));
    };
    let addresses = addresses(&request);
    if !vm.client().has_feature(Feature::Network, deadline).await.map_err(CallError::from)? {
        let result = with_base_agent(vm, &request, kind, addresses, deadline).await?;
        return Ok((None, Ok(result)));
    }
    let mut change = ChangeNetwork::from(request);
    change.dry_run = kind.is_look().then_some(true);
    let done = vm.client().call(&change, Lane::Background, deadline).await;
    // Cannot fail: the change itself is as long, and was sent.
    let look = LookRequest::of(&change).ok();
    let result = done.map(|done| match (kind, done.changed != Some(false)) {
        (AttemptKind::Look, true) => AttemptResult::Drifted { reason: differences(&done), look },
        (AttemptKind::Apply | AttemptKind::Look, changed) => {
            AttemptResult::Applied { changed, addresses, look }
        }
    });
    Ok((Some(change), result))
}

/// Writes the VM's leases to the database, before its agent hears of an address.
async fn lease(store: &DeclaredStore, config: &EffectiveConfig) -> Result<(), AttemptError> {
    let (vm, needs) = (config.vm.clone(), config.needs());
    let is_leased = store.read(|state| state.plan_leases(&vm, &needs))?.changes.is_empty();
    if !is_leased {
        let plan = move |state: &DeclaredState| Ok((state.plan_leases(&vm, &needs)?, ()));
        store.change(plan).await?;
    }
    Ok(())
}

/// Configures an agent without the feature `network2`, which cannot compare.
async fn with_base_agent(
    vm: &Vm,
    request: &NetworkRequest,
    kind: AttemptKind,
    addresses: InterfaceAddresses,
    deadline: Instant,
) -> Result<AttemptResult, AttemptError> {
    vm.client().allows(Feature::Network.operation()).map_err(CallError::from)?;
    let base = base_request(request);
    let too_old = || AgentRefusal::too_old(Feature::Network, &["network"]);
    let base = base.ok_or_else(too_old).map_err(CallError::from)?;
    if kind == AttemptKind::Apply {
        vm.client().call(&base, Lane::Background, deadline).await?;
    }
    let changed = kind == AttemptKind::Apply;
    Ok(AttemptResult::Applied { changed, addresses, look: None })
}

/// Returns the request in the form of the base protocol, if that has all its settings. It has no checks.
fn base_request(request: &NetworkRequest) -> Option<ConfigureNetwork> {
    let NetworkRequest { interfaces, dns, .. } = request;
    let [interface] = interfaces.as_slice() else { return None };
    let (Some([ip]), [gateway]) = (interface.addresses.as_deref(), interface.gateways.as_slice())
    else {
        return None;
    };
    let only_base = NetworkRequest {
        interfaces: vec![InterfaceRequest {
            addresses: interface.addresses.clone(),
            gateways: interface.gateways.clone(),
            ..InterfaceRequest::default()
        }],
        dns: dns.clone(),
        ..NetworkRequest::default()
    };
    (only_base == *request).then(|| ConfigureNetwork {
        ip: ip.clone(),
        gateway: gateway.clone(),
        dns: dns.clone(),
    })
}

fn addresses(request: &NetworkRequest) -> InterfaceAddresses {
    let parsed = |list: &Vec<String>| {
        list.iter().filter_map(|text| text.split('/').next()?.parse().ok()).collect()
    };
    let interfaces = request.interfaces.iter().filter_map(|one| {
        let selector = one.name.clone().or_else(|| one.mac.clone()).unwrap_or_default();
        Some((selector, parsed(one.addresses.as_ref()?)))
    });
    InterfaceAddresses(interfaces.collect())
}

fn call_message(error: &CallError) -> String {
    match error {
        CallError::Refused(AgentRefusal::Answer(error)) => {
            let step = error.step.as_ref().map(|step| format!(" at {step}")).unwrap_or_default();
            let field = error.field.as_ref().map(|one| format!("`{one}` ")).unwrap_or_default();
            format!("the agent refused{step}: {field}{}", error.message)
        }
        CallError::Refused(AgentRefusal::TooOld(missing)) => {
            format!("this agent version does not support {missing}; upgrade minions-agent")
        }
        // Only calls of clients have this precondition.
        CallError::Refused(AgentRefusal::OtherIncarnation(_)) => {
            "another incarnation of the VM answered".to_owned()
        }
        CallError::Transport(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn an_attempt_that_panics_has_failed() {
        let result = guarded(async { panic!("a bug") }).await;
        let AttemptResult::Failed(reason) = result else { panic!("{result:?}") };
        assert!(reason.contains("bug in minionsd"), "{reason}");
        assert_eq!(guarded(async { AttemptResult::Nothing }).await, AttemptResult::Nothing);
    }

    #[test]
    fn only_a_request_with_nothing_else_fits_the_base_protocol() {
        let request = |json| serde_json::from_value::<NetworkRequest>(json).unwrap();
        let plain = json!({
            "interfaces": [{ "addresses": ["10.0.0.2/16"], "gateways": ["10.0.0.1"] }], "dns": ["1.1.1.1"],
        });
        let base = base_request(&request(plain.clone())).unwrap();
        assert_eq!((base.ip.as_str(), base.gateway.as_str()), ("10.0.0.2/16", "10.0.0.1"));
        assert_eq!(base.dns, ["1.1.1.1"]);
        for (path, value) in [
            ("/hostname", json!("a")),
            ("/interfaces/0/mtu", json!(1400)),
            ("/interfaces/0/name", json!("eth1")),
            ("/interfaces/0/gateways", json!([])),
            ("/interfaces/0/addresses", json!(["10.0.0.2/16", "10.0.0.3/16"])),
        ] {
            let mut other = plain.clone();
            let (parent, key) = path.rsplit_once('/').unwrap();
            other.pointer_mut(parent).unwrap()[key] = value;
            assert_eq!(base_request(&request(other)), None, "{path}");
        }
    }

    #[test]
    fn only_interfaces_with_addresses_lose_those_that_they_had() {
        let request = json!({
            "interfaces": [
                { "addresses": ["10.0.0.2/16", "fd00::2/64"] },
                { "name": "eth1", "mtu": 1400 },
                { "mac": "52:54:00:12:34:56", "addresses": [] },
            ],
        });
        let mut addresses = addresses(&serde_json::from_value(request).unwrap());
        let given = ["10.0.0.2", "fd00::2"].map(|one| one.parse::<IpAddr>().unwrap());
        let mac = "52:54:00:12:34:56".to_owned();
        let expected = vec![(String::new(), given.to_vec()), (mac.clone(), Vec::new())];
        assert_eq!(addresses, InterfaceAddresses(expected));
        let third: IpAddr = "10.0.0.3".parse().unwrap();
        addresses.adopt(InterfaceAddresses(vec![(mac, vec![third])]));
        assert_eq!(addresses.all().to_vec(), [given[0], given[1], third]);
        addresses.adopt(InterfaceAddresses(vec![(String::new(), Vec::new())]));
        assert_eq!(addresses.all().to_vec(), [third]);
    }
}
