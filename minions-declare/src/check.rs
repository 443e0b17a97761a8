//! Checks of one declaration.

use crate::effective::{Addressing, EffectiveConfig, addressing};
use crate::guest_policy::check_policies;
use crate::network::{network_request, no_pool};
use crate::state::Pools;
use crate::target::Target;
use minions_api::VmName;
use minions_api::declaration::{Declaration, DeclaredInterface, DeclaredNetwork};
use minions_api::label::{MAX_LABELS, check_key, check_value};
use minions_proto::Invalid;
use std::cell::Cell;

/// Name server of a sample configuration, for a declaration that leaves name servers to another one.
const SAMPLE_SERVER: &str = "192.0.2.1";

/// Checks a declaration by itself: each field, and the request that a VM with only this declaration gets.
///
/// # Errors
///
/// [`Invalid`] for the first wrong field, below `at`.
pub fn check_declaration(
    at: &str,
    target: &Target,
    declaration: &Declaration,
    pools: &Pools,
) -> Result<(), Invalid> {
    let below = |invalid: Invalid| {
        let field = if at.is_empty() { invalid.field } else { format!("{at}.{}", invalid.field) };
        Invalid::new(field, invalid.reason)
    };
    check_labels(declaration).map_err(below)?;
    check_policies(declaration).map_err(below)?;
    if let Some(network) = &declaration.network {
        check_forms(network).map_err(below)?;
        check_pools(network, pools).map_err(below)?;
    }
    check_request(target, declaration, pools).map_err(below)
}

fn check_labels(declaration: &Declaration) -> Result<(), Invalid> {
    let labels = &declaration.labels;
    if labels.len() > MAX_LABELS {
        let reason = format!("has {} labels: give at most {MAX_LABELS}", labels.len());
        return Err(Invalid::new("labels", reason));
    }
    for (key, value) in labels {
        check_key(key).map_err(|rule| Invalid::value("labels", key, rule))?;
        check_value(value).map_err(|rule| Invalid::value(format!("labels.{key}"), value, rule))?;
    }
    Ok(())
}

fn check_forms(network: &DeclaredNetwork) -> Result<(), Invalid> {
    let DeclaredNetwork { pool, ip, gateway, interfaces, .. } = network;
    let exclusive =
        "conflicts with another form: give one of `pool`, `ip` with `gateway`, and `interfaces`";
    if pool.is_some() && ip.is_some() {
        return Err(Invalid::new("network.ip", exclusive));
    }
    if gateway.is_some() && ip.is_none() {
        return Err(Invalid::new("network.gateway", "requires `ip`; a pool has its own gateway"));
    }
    if (pool.is_some() || ip.is_some()) && !interfaces.is_empty() {
        return Err(Invalid::new("network.interfaces", exclusive));
    }
    Ok(())
}

fn check_pools(network: &DeclaredNetwork, pools: &Pools) -> Result<(), Invalid> {
    let own = network.pool.iter().map(|pool| ("network.pool".to_owned(), pool));
    let interfaces = network.interfaces.iter().enumerate();
    let of_interfaces = interfaces.filter_map(|(at, interface)| {
        Some((format!("network.interfaces[{at}].pool"), interface.pool.as_ref()?))
    });
    for (field, pool) in own.chain(of_interfaces) {
        if !pools.contains_key(pool) {
            return Err(no_pool(&field, pool));
        }
    }
    Ok(())
}

/// Checks the request of a VM with only this declaration. Settings that the declaration may leave to another one get
/// sample values.
fn check_request(target: &Target, declaration: &Declaration, pools: &Pools) -> Result<(), Invalid> {
    let sample: Result<VmName, _> = "vm".parse();
    let Some(vm) = target.vm().cloned().or(sample.ok()) else { return Ok(()) };
    let mut config = EffectiveConfig::none(&vm);
    let mut declaration = declaration.clone();
    if let Some(network) = &mut declaration.network {
        if addressing(network).is_none() {
            network.interfaces = vec![DeclaredInterface::default()];
        }
        if network.search.is_some() && network.dns.is_none() {
            network.dns = Some(vec![SAMPLE_SERVER.to_owned()]);
        }
    }
    config.fill(target.as_str(), &declaration);
    // Interfaces get different addresses, also those of one pool.
    let needs = config.needs();
    let sample_lease = |need: &_| match need {
        crate::LeaseNeed::Pool { pool, .. } => {
            let pool = &pools.get(pool)?.pool;
            let of_pool = |one: &&crate::LeaseNeed| matches!(one, crate::LeaseNeed::Pool { pool: of, .. } if of == pool.name());
            let skipped = Cell::new(needs.iter().filter(of_pool).position(|one| one == need)?);
            let skip = |_| skipped.replace(skipped.get().saturating_sub(1)) > 0;
            pool.all_addresses().first(skip).map(|one| pool.address(one))
        }
        crate::LeaseNeed::Fixed { address, .. } => Some(*address),
    };
    check_gateway_pools(config.addressing.as_ref().map(|field| &field.value), pools)?;
    network_request(&config, pools, sample_lease).map(|_| ())
}

/// Checks that no declared address is the gateway of a pool.
fn check_gateway_pools(addressing: Option<&Addressing>, pools: &Pools) -> Result<(), Invalid> {
    let needs = addressing.map(Addressing::needs).unwrap_or_default();
    for need in needs {
        let crate::LeaseNeed::Fixed { address, .. } = need else { continue };
        let gateway = pools.values().find(|stored| stored.pool.gateway() == Some(address));
        if let Some(stored) = gateway {
            let reason = format!("is the gateway of the pool {:?}", stored.pool.name());
            let field = match addressing {
                Some(Addressing::Fixed { .. }) => "network.ip",
                _ => "network.interfaces",
            };
            return Err(Invalid::value(field, &address.to_string(), &reason));
        }
    }
    Ok(())
}
