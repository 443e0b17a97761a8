//! Pools that share a subnet, and leases that are not from a pool.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "in tests, a panic with its location is the report"
)]

use minions_api::declaration::ApplyRequest;
use minions_api::pool::{LeaseKind, ReserveRequest};
use minions_api::{Timestamp, VmName};
use minions_declare::document::{Document, DocumentFormat};
use minions_declare::leasing::DUPLICATE_FOR;
use minions_declare::{DeclareError, DeclaredState, IfRevision};
use std::time::Duration;

/// Two pools of one link. Each keeps an address that is in the range of the other.
const TWO_POOLS: &str = "
pools:
- {name: low, subnet: 10.0.0.0/28, range: 10.0.0.2-10.0.0.5, gateway: 10.0.0.9, reserved: [10.0.0.8]}
- {name: high, subnet: 10.0.0.0/28, range: 10.0.0.6-10.0.0.10, gateway: 10.0.0.3, reserved: [10.0.0.4-10.0.0.5]}
declarations: [{name: 'l*', network: {pool: low}}, {name: 'h*', network: {pool: high}}]
";

fn request(yaml: &str) -> ApplyRequest {
    let Document { pools, declarations } = Document::parse(yaml, DocumentFormat::Yaml).unwrap();
    ApplyRequest { pools, declarations, ..ApplyRequest::default() }
}

fn apply(state: &mut DeclaredState, yaml: &str) -> Result<(), DeclareError> {
    let (plan, _) = state.plan_apply(&request(yaml), &[])?;
    state.commit(&plan);
    Ok(())
}

fn with(yaml: &str) -> DeclaredState {
    let mut state = DeclaredState::default();
    apply(&mut state, yaml).unwrap();
    state
}

fn vm(name: &str) -> VmName {
    name.parse().unwrap()
}

/// Leases what a VM needs, and returns its addresses.
fn lease(state: &mut DeclaredState, name: &str) -> Result<String, DeclareError> {
    let plan = state.plan_leases(&vm(name), &state.effective(&vm(name)).needs())?;
    state.commit(&plan);
    let all: Vec<_> =
        state.leases().of_vm(&vm(name)).map(|lease| lease.address.to_string()).collect();
    Ok(all.join(" "))
}

/// Leases addresses until the pool is exhausted.
fn all_of(state: &mut DeclaredState, letter: &str) -> Vec<String> {
    let mut next = |at| lease(state, &format!("{letter}{at}"));
    (0..100).map_while(|at| next(at).ok()).collect()
}

#[test]
fn pools_of_one_subnet_do_not_give_the_gateway_or_a_reserved_address_of_each_other() {
    let mut state = with(TWO_POOLS);
    let free = |state: &DeclaredState| {
        ["low", "high"].map(|name| state.pool_status(&state.pools()[name]).free)
    };
    assert_eq!(free(&state), [1, 3]);
    assert_eq!(all_of(&mut state, "l"), ["10.0.0.2"]);
    assert_eq!(all_of(&mut state, "h"), ["10.0.0.6", "10.0.0.7", "10.0.0.10"]);
    assert_eq!(free(&state), [0, 0]);
    // A change of one pool frees addresses of the other one.
    let other_gateway = "pools: [{name: high, subnet: 10.0.0.0/28, range: 10.0.0.6-10.0.0.10}]";
    apply(&mut state, other_gateway).unwrap();
    assert_eq!(free(&state), [3, 0]);
    assert_eq!(lease(&mut state, "l7").unwrap(), "10.0.0.3");
    let (plan, _) =
        state.plan_release(Some("low"), "10.0.0.3".parse().unwrap(), |_| false).unwrap();
    state.commit(&plan);
    assert_eq!(free(&state), [3, 0], "it is free again");
}

#[test]
fn a_released_address_that_another_pool_keeps_is_not_given_again() {
    let mut state = with(
        "
pools: [{name: low, subnet: 10.0.0.0/28, range: 10.0.0.2-10.0.0.3}]
declarations: [{name: '*', network: {pool: low}}]",
    );
    assert_eq!(all_of(&mut state, "l"), ["10.0.0.2", "10.0.0.3"]);
    let high = "pools: [{name: high, subnet: 10.0.0.0/28, range: 10.0.0.6-10.0.0.9, reserved: [10.0.0.3]}]";
    apply(&mut state, high).unwrap();
    let (plan, _) =
        state.plan_release(Some("low"), "10.0.0.3".parse().unwrap(), |_| false).unwrap();
    state.commit(&plan);
    assert!(matches!(lease(&mut state, "later"), Err(DeclareError::Exhausted { .. })));
    let plan = state.plan_remove_pool("high", IfRevision::Any).unwrap();
    state.commit(&plan);
    assert_eq!(lease(&mut state, "later").unwrap(), "10.0.0.3");
}

#[test]
fn a_gateway_that_a_vm_has_is_refused_and_a_gateway_is_not_reserved_in_another_pool() {
    let mut state = with(TWO_POOLS);
    assert_eq!(lease(&mut state, "l1").unwrap(), "10.0.0.2");
    let high =
        "pools: [{name: high, subnet: 10.0.0.0/28, range: 10.0.0.6-10.0.0.10, gateway: 10.0.0.2}]";
    let error = apply(&mut state, high).unwrap_err().to_string();
    for words in ["10.0.0.2", "\"high\"", "leased by l1"] {
        assert!(error.contains(words), "no {words:?} in {error}");
    }
    let address = Some("10.0.0.9".parse().unwrap());
    let reserve = ReserveRequest { address, vm: Some(vm("x")), interface: String::new() };
    let error = state.plan_reserve("high", &reserve).unwrap_err().to_string();
    assert!(error.contains("gateway of the pool \"low\""), "{error}");
}

fn reserve(
    state: &mut DeclaredState,
    name: &str,
    address: Option<&str>,
) -> Result<(String, String), DeclareError> {
    let address = address.map(|text| text.parse().unwrap());
    let request = ReserveRequest { address, vm: Some(vm(name)), interface: String::new() };
    let (plan, lease) = state.plan_reserve("lan", &request)?;
    state.commit(&plan);
    Ok((lease.interface, lease.address.to_string()))
}

#[test]
fn a_reservation_without_an_interface_takes_the_one_that_has_the_address_or_the_only_one_of_the_pool()
 {
    let mut state = with(
        "
pools: [{name: lan, subnet: 10.0.0.0/24}, {name: wan, subnet: 10.1.0.0/24}]
declarations:
- {name: two, network: {interfaces: [{name: eth1, pool: lan}, {name: eth2, pool: lan}]}}
- {name: one, network: {interfaces: [{name: eth0, pool: wan}, {name: eth3, pool: lan}]}}
- {name: first, network: {pool: lan}}",
    );
    assert_eq!(lease(&mut state, "two").unwrap(), "10.0.0.1 10.0.0.2");
    assert_eq!(reserve(&mut state, "two", Some("10.0.0.2")).unwrap().0, "eth2");
    assert_eq!(lease(&mut state, "two").unwrap(), "10.0.0.1 10.0.0.2", "nothing has moved");
    for address in [None, Some("10.0.0.9")] {
        let error = reserve(&mut state, "two", address).unwrap_err().to_string();
        assert!(error.contains("`interface`") && error.contains("eth1, eth2"), "{error}");
    }
    let expected = |interface: &str, address: &str| Ok((interface.to_owned(), address.to_owned()));
    assert_eq!(reserve(&mut state, "one", None), expected("eth3", "10.0.0.3"));
    assert_eq!(reserve(&mut state, "first", None), expected("", "10.0.0.4"));
    assert_eq!(reserve(&mut state, "unknown", None), expected("", "10.0.0.5"));
}

fn quarantine(state: &mut DeclaredState, name: &str, address: &str) -> bool {
    let plan = state.plan_quarantine(&vm(name), address.parse().unwrap(), Timestamp::now());
    state.commit(&plan);
    !plan.changes.is_empty()
}

#[test]
fn an_address_that_another_host_has_is_given_to_no_vm_for_an_hour() {
    let mut state = with(
        "
pools: [{name: lan, subnet: 10.0.0.0/28}]
declarations: [{name: '*', network: {pool: lan}}, {name: 'r*', network: {ip: 10.0.0.9/28}}]",
    );
    assert_eq!(lease(&mut state, "a").unwrap(), "10.0.0.1");
    assert!(!quarantine(&mut state, "b", "10.0.0.1"), "it is not the lease of b");
    for at in 1..=4 {
        assert!(quarantine(&mut state, "a", &format!("10.0.0.{at}")));
        let held = lease(&mut state, "a").unwrap();
        assert!(held.ends_with(&format!(" 10.0.0.{}", at + 1)), "{held}");
    }
    assert!(!quarantine(&mut state, "a", "10.0.0.5"), "a guest that lies does not use up the pool");
    assert_eq!(lease(&mut state, "b").unwrap(), "10.0.0.6");
    assert_eq!(lease(&mut state, "r1").unwrap(), "10.0.0.9");
    assert!(!quarantine(&mut state, "r1", "10.0.0.9"), "a declared address stays");
    let one = "10.0.0.1".parse().unwrap();
    assert_eq!(state.leases().get(one).unwrap().kind, LeaseKind::Duplicate);
    let error = reserve(&mut state, "a", Some("10.0.0.1")).unwrap_err().to_string();
    assert!(error.contains("another host"), "{error}");
    let fixed = "declarations: [{name: a, network: {ip: 10.0.0.1/28}}]";
    let error = apply(&mut state, fixed).unwrap_err().to_string();
    assert!(error.contains("another host"), "{error}");
    // It ends after its time although its VM exists, or when it is released.
    let sweep = |state: &DeclaredState, age| {
        state.plan_sweep(Timestamp::now(), |_| true, |_| age).changes.len()
    };
    assert_eq!(sweep(&state, DUPLICATE_FOR - Duration::from_secs(1)), 0);
    assert_eq!(sweep(&state, DUPLICATE_FOR), 4);
    let (plan, _) = state.plan_release(Some("lan"), one, |_| true).unwrap();
    state.commit(&plan);
    assert_eq!(lease(&mut state, "c").unwrap(), "10.0.0.1");
}

#[test]
fn a_declared_address_outside_all_pools_can_be_released() {
    let mut state = with("declarations: [{name: a, network: {ip: 10.7.0.2/24}}]");
    assert_eq!(lease(&mut state, "a").unwrap(), "10.7.0.2");
    let address = "10.7.0.2".parse().unwrap();
    let used = state.plan_release(None, address, |_| true).unwrap_err().to_string();
    assert!(used.contains("in use by a"), "{used}");
    let (plan, lease) = state.plan_release(None, address, |_| false).unwrap();
    state.commit(&plan);
    assert_eq!((lease.kind, state.leases().len()), (LeaseKind::Static, 0));
    let missing = state.plan_release(None, address, |_| false).unwrap_err();
    assert_eq!(missing.to_string(), "10.7.0.2 has no lease");
}
