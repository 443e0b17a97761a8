//! Declared state: precedence, refusals, addresses, and what a dry run promises.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "in tests, a panic with its location is the report"
)]

use minions_api::declaration::{ApplyAction, ApplyRequest, DriftPolicy};
use minions_api::network::NetworkRequest;
use minions_api::pool::{LeaseKind, ReserveRequest};
use minions_api::{Timestamp, VmName};
use minions_declare::document::{Document, DocumentFormat};
use minions_declare::explain::explain;
use minions_declare::{Change, DeclareError, DeclaredState, IfRevision};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

const POOL: &str = "
pools: [{name: lan, subnet: 10.0.0.0/24, range: 10.0.0.2-10.0.0.5, gateway: 10.0.0.1, dns: [1.1.1.1], mtu: 1400}]
";

fn request(yaml: &str) -> ApplyRequest {
    let Document { pools, declarations } = Document::parse(yaml, DocumentFormat::Yaml).unwrap();
    ApplyRequest { pools, declarations, ..ApplyRequest::default() }
}

fn vm(name: &str) -> VmName {
    name.parse().unwrap()
}

fn apply(state: &mut DeclaredState, yaml: &str) {
    let (plan, _) = state.plan_apply(&request(yaml), &[]).unwrap();
    state.commit(&plan);
}

fn refused(state: &DeclaredState, yaml: &str) -> DeclareError {
    state.plan_apply(&request(yaml), &[]).unwrap_err()
}

fn with_pool(yaml: &str) -> DeclaredState {
    let mut state = DeclaredState::default();
    apply(&mut state, &format!("{POOL}{yaml}"));
    state
}

/// Leases what a VM needs, and returns the request for its agent.
fn configure(
    state: &mut DeclaredState,
    name: &str,
) -> Result<Option<NetworkRequest>, DeclareError> {
    let config = state.effective(&vm(name));
    let plan = state.plan_leases(&vm(name), &config.needs())?;
    state.commit(&plan);
    Ok(state.network_request(&config)?)
}

fn address(state: &mut DeclaredState, name: &str) -> String {
    let request = configure(state, name).unwrap().unwrap();
    request.interfaces[0].addresses.clone().unwrap().remove(0)
}

#[test]
fn the_most_specific_declaration_decides_field_by_field() {
    let state = with_pool(
        "
declarations:
- {name: '*', labels: {site: a, app: none}, hostname: '{vm}', drift: report, network: {search: [a.test]},
   clock_limit_ms: 5000, restore: {steps: []}}
- {name: 'web-*', labels: {app: web}, network: {pool: lan, mtu: 1300}, restore: {required: [clock]}}
- {name: web-1, hostname: first, drift: repair, network: {dns: [9.9.9.9]}}
",
    );
    let config = state.effective(&vm("web-1"));
    assert_eq!(config.declarations, ["web-1", "web-*", "*"]);
    let labels = [("app".to_owned(), "web".to_owned()), ("site".to_owned(), "a".to_owned())];
    assert_eq!(config.plain_labels(), labels.into_iter().collect());
    let declarations = state.declarations();
    assert_eq!(declarations.labels_of(&vm("web-1")), config.plain_labels());
    for (selector, matches) in
        [("app=web", true), ("app=none", false), ("site=a,!env", true), ("app!=web", false)]
    {
        let selector = selector.parse().unwrap();
        assert_eq!(declarations.has_labels(&vm("web-1"), &selector), matches, "{selector}");
    }
    assert_eq!(config.hostname.as_ref().unwrap().value, "first");
    assert_eq!(config.drift_policy(), DriftPolicy::Repair);
    assert_eq!(config.clock_limit_ms.as_ref().unwrap().value, 5000);
    assert_eq!(state.declarations().clock_limit_ms(&vm("web-1")), Some(5000));
    let restore = &config.restore.as_ref().unwrap().value;
    assert_eq!((&restore.steps, restore.required.as_slice()), (&None, &["clock".to_owned()][..]));
    let origins: Vec<_> =
        config.origins().into_iter().map(|one| format!("{} {}", one.field, one.from)).collect();
    let expected = [
        "labels.app web-*",
        "labels.site *",
        "hostname web-1",
        "drift web-1",
        "clock_limit_ms *",
        "restore web-*",
        "network.pool web-*",
        "network.dns web-1",
        "network.search *",
        "network.mtu web-*",
    ];
    assert_eq!(origins, expected);
    assert_eq!(state.effective(&vm("db")).hostname.unwrap().value, "db");
}

#[test]
fn an_explanation_lists_every_declaration_of_a_field_and_the_first_one_decides() {
    let state = with_pool(
        "
declarations:
- {name: '*', labels: {a.b: x}, network: {pool: lan, mtu: 1300}}
- {name: 'web-?', labels: {a.b: y}, hostname: '{vm}'}
- {name: web-1, network: {ip: 10.5.0.2/24}}
- {name: db, hostname: other}
",
    );
    let explained = explain(&vm("web-1"), state.declarations());
    let ranks: Vec<_> =
        explained.declarations.iter().map(|one| format!("{}: {}", one.name, one.rank)).collect();
    let expected = [
        "web-1: the name of the VM",
        "web-?: a pattern with 4 characters other than wildcards",
        "*: a pattern with 0 characters other than wildcards",
    ];
    assert_eq!(ranks, expected);
    let fields: Vec<_> = explained
        .fields
        .iter()
        .map(|one| {
            let all = one.candidates.iter().map(|one| format!("{} {}", one.from, one.value));
            format!("{}: {}", one.field, all.collect::<Vec<_>>().join(", "))
        })
        .collect();
    let expected = [
        r#"hostname: web-? "{vm}""#,
        r#"labels.a.b: web-? "y", * "x""#,
        r#"network.ip: web-1 "10.5.0.2/24", * "lan""#,
        "network.mtu: * 1300",
    ];
    assert_eq!(fields, expected);
    let config = state.effective(&vm("web-1"));
    for field in &explained.fields {
        let decides = config.origins().into_iter().find(|one| one.field == field.field).unwrap();
        assert_eq!(decides.from, field.candidates[0].from, "{}", field.field);
    }
}

#[test]
fn a_vm_gets_address_gateway_servers_and_mtu_from_its_pool() {
    let mut state =
        with_pool("declarations: [{name: 'web-*', hostname: '{vm}', network: {pool: lan}}]");
    let request = configure(&mut state, "web-1").unwrap().unwrap();
    assert_eq!(request.interfaces[0].addresses, Some(vec!["10.0.0.2/24".to_owned()]));
    assert_eq!(request.interfaces[0].gateways, ["10.0.0.1"]);
    assert_eq!((request.interfaces[0].mtu, request.mtu), (Some(1400), None));
    assert_eq!((request.dns, request.hostname), (vec!["1.1.1.1".to_owned()], Some("web-1".into())));
    assert_eq!(address(&mut state, "web-2"), "10.0.0.3/24");
    assert_eq!(address(&mut state, "web-1"), "10.0.0.2/24", "the address stays");
    assert_eq!(configure(&mut state, "db"), Ok(None), "no declaration: nothing to do");
}

#[test]
fn a_pool_that_runs_out_names_itself_and_the_vm() {
    let mut state = with_pool("declarations: [{name: '*', network: {pool: lan}}]");
    for name in ["a", "b", "c", "d"] {
        address(&mut state, name);
    }
    let error = configure(&mut state, "e").unwrap_err();
    assert_eq!(error, DeclareError::Exhausted { pool: "lan".into(), vm: vm("e") });
    assert_eq!(address(&mut state, "a"), "10.0.0.2/24", "other VMs are unaffected");
}

#[test]
fn a_lease_ends_after_its_time_and_a_vm_that_returns_in_time_keeps_it() {
    let mut state = with_pool("declarations: [{name: '*', network: {pool: lan}}]");
    assert_eq!(
        (address(&mut state, "a"), address(&mut state, "b")),
        ("10.0.0.2/24".into(), "10.0.0.3/24".into())
    );
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let at = |secs| Timestamp(start + Duration::from_secs(secs));
    let sweep = |state: &mut DeclaredState, secs, used: &[&str]| {
        let is_used = |lease: &minions_api::pool::Lease| {
            lease.vm.as_ref().is_some_and(|vm| used.contains(&vm.as_str()))
        };
        let unused_for = |lease: &minions_api::pool::Lease| {
            let since: SystemTime = lease.unused_since.unwrap().0;
            at(secs).0.duration_since(since).unwrap()
        };
        let plan = state.plan_sweep(at(secs), is_used, unused_for);
        state.commit(&plan);
        plan.changes.len()
    };
    assert_eq!(sweep(&mut state, 0, &["a", "b"]), 0);
    assert_eq!(sweep(&mut state, 10, &["a"]), 1, "b is gone");
    assert_eq!(sweep(&mut state, 3609, &["a"]), 0);
    assert_eq!(address(&mut state, "b"), "10.0.0.3/24", "b is back");
    assert_eq!(sweep(&mut state, 3620, &[]), 2);
    assert_eq!(sweep(&mut state, 3620 + 3599, &[]), 0);
    assert_eq!(sweep(&mut state, 3620 + 3600, &[]), 2);
    assert!(state.leases().is_empty());
    assert_eq!(address(&mut state, "c"), "10.0.0.2/24", "the address is free again");
}

#[test]
fn a_reservation_gives_a_vm_its_address_and_never_ends_by_itself() {
    let mut state = with_pool("declarations: [{name: '*', network: {pool: lan}}]");
    let reserve = |state: &mut DeclaredState, address: Option<&str>, name: Option<&str>| {
        let address = address.map(|text| text.parse().unwrap());
        let request = ReserveRequest { address, vm: name.map(vm), interface: String::new() };
        let (plan, lease) = state.plan_reserve("lan", &request)?;
        state.commit(&plan);
        Ok::<_, DeclareError>(lease.address.to_string())
    };
    assert_eq!(reserve(&mut state, Some("10.0.0.4"), Some("later")).unwrap(), "10.0.0.4");
    assert_eq!(reserve(&mut state, Some("10.0.0.2"), None).unwrap(), "10.0.0.2");
    assert_eq!(reserve(&mut state, Some("10.0.0.77"), Some("beyond")).unwrap(), "10.0.0.77");
    assert_eq!(address(&mut state, "a"), "10.0.0.3/24");
    assert_eq!(address(&mut state, "later"), "10.0.0.4/24");
    assert_eq!(address(&mut state, "beyond"), "10.0.0.77/24");
    assert_eq!(
        reserve(&mut state, None, Some("a")).unwrap(),
        "10.0.0.3",
        "its own becomes reserved"
    );
    let never = Duration::from_secs(u64::MAX);
    let plan = state.plan_sweep(Timestamp(SystemTime::UNIX_EPOCH), |_| false, |_| never);
    assert!(plan.changes.is_empty(), "reservations stay: {plan:?}");
    for (address, words) in
        [("10.0.0.3", "belongs to a"), ("10.0.0.1", "gateway"), ("10.0.1.1", "subnet")]
    {
        let error = reserve(&mut state, Some(address), Some("x")).unwrap_err().to_string();
        assert!(error.contains(words), "{address}: {error}");
    }
    let taken: IpAddr = "10.0.0.3".parse().unwrap();
    let used = state.plan_release(Some("lan"), taken, |_| true).unwrap_err().to_string();
    assert!(used.contains("in use by a"), "{used}");
    let (plan, _) = state.plan_release(Some("lan"), taken, |_| false).unwrap();
    state.commit(&plan);
    assert_eq!(state.leases().get(taken), None);
}

#[test]
fn a_static_address_is_taken_from_the_pool_and_has_one_owner() {
    let mut state = with_pool(
        "
declarations:
- {name: '*', network: {pool: lan}}
- {name: fixed, network: {ip: 10.0.0.2/24, gateway: 10.0.0.1}}
- {name: 'twin-*', network: {ip: 10.0.0.5/24, gateway: 10.0.0.1}}
",
    );
    assert_eq!(address(&mut state, "fixed"), "10.0.0.2/24");
    assert_eq!(state.leases().get("10.0.0.2".parse().unwrap()).unwrap().kind, LeaseKind::Static);
    assert_eq!(address(&mut state, "a"), "10.0.0.3/24");
    assert_eq!(address(&mut state, "b"), "10.0.0.4/24");
    let error = configure(&mut state, "c").unwrap_err();
    assert!(matches!(error, DeclareError::Exhausted { .. }), "10.0.0.5 is kept: {error}");
    assert_eq!(address(&mut state, "twin-1"), "10.0.0.5/24");
    let error = configure(&mut state, "twin-2").unwrap_err().to_string();
    assert!(error.contains("10.0.0.5") && error.contains("twin-1"), "{error}");
    for (name, owner) in [("10.0.0.2", "fixed"), ("10.0.0.3", "belongs to a")] {
        let yaml = format!(
            "declarations: [{{name: other, network: {{ip: {name}/24, gateway: 10.0.0.1}}}}]"
        );
        let error = refused(&state, &yaml).to_string();
        assert!(error.contains(owner) && error.contains("other"), "{error}");
    }
}

#[test]
fn bad_declarations_are_refused_by_field_and_nothing_is_changed() {
    let state = with_pool("declarations: [{name: ok, network: {pool: lan}}]");
    for (yaml, words) in [
        ("declarations: [{labels: {a: b}}]", &["declarations[0].name"][..]),
        ("declarations: [{name: ok}, {name: 'a b'}]", &["declarations[1].name", "a b"]),
        ("declarations: [{name: a}, {name: a}]", &["declarations[1].name", "twice"]),
        ("declarations: [{name: a, labels: {'!': x}}]", &["declarations[0].labels", "key"]),
        ("declarations: [{name: a, labels: {x: 'a b'}}]", &["declarations[0].labels.x"]),
        ("declarations: [{name: a, hostname: 'a_b'}]", &["declarations[0].hostname", "hyphens"]),
        (
            "declarations: [{name: a, network: {pool: wan}}]",
            &["declarations[0].network.pool", "wan"],
        ),
        (
            "declarations: [{name: a, network: {interfaces: [{pool: wan}]}}]",
            &["interfaces[0].pool", "wan"],
        ),
        (
            "declarations: [{name: a, network: {pool: lan, ip: 10.0.0.9/24}}]",
            &["network.ip", "conflicts"],
        ),
        (
            "declarations: [{name: a, network: {pool: lan, gateway: 10.0.0.1}}]",
            &["network.gateway"],
        ),
        (
            "declarations: [{name: a, network: {pool: lan, interfaces: [{}]}}]",
            &["network.interfaces"],
        ),
        ("declarations: [{name: a, network: {ip: 10.0.0.9}}]", &["network.ip", "prefix"]),
        (
            "declarations: [{name: a, network: {ip: 10.0.0.9/24, gateway: 10.1.0.1}}]",
            &["network.gateway"],
        ),
        (
            "declarations: [{name: a, network: {ip: 10.0.0.1/24}}]",
            &["network.ip", "gateway of the pool"],
        ),
        ("declarations: [{name: a, network: {mtu: 12}}]", &["network.mtu", "1280"]),
        ("declarations: [{name: a, network: {dns: [x]}}]", &["network.dns[0]"]),
        ("declarations: [{name: a, network: {routes: [{to: x}]}}]", &["network.routes[0]"]),
        (
            "declarations: [{name: a, clock_limit_ms: 99}]",
            &["declarations[0].clock_limit_ms", "or 0"],
        ),
        (
            "declarations: [{name: a, restore: {steps: [entropy, coffee]}}]",
            &["declarations[0].restore.steps[1]", "coffee"],
        ),
        (
            "declarations: [{name: a, restore: {required: [hooks]}}]",
            &["restore.required", "not in `steps`"],
        ),
        ("declarations: [{name: a, restore: {hostname: 'a b'}}]", &["restore.hostname", "{vm}"]),
        ("declarations: [{name: a, restore: {hook_timeout_ms: 0}}]", &["restore.hook_timeout_ms"]),
        (
            "declarations: [{name: a, restore: {network: {dns: [1.1.1.1], dry_run: true}}}]",
            &["restore.network.dry_run", "absent"],
        ),
        (
            "declarations: [{name: a, restore: {network: {ip: 10.0.0.2/24}}}]",
            &["restore.network.gateway"],
        ),
        ("pools: [{name: b, subnet: 10.0.0.0/25}]", &["\"lan\"", "\"b\"", "overlaps"]),
        ("pools: [{name: b, subnet: 10.0.0.0/24}]", &["\"lan\"", "\"b\"", "overlap"]),
        (
            "pools: [{name: b, subnet: 10.9.0.0/24, gateway: 10.8.0.1}]",
            &["pools[0].gateway", "10.9.0.0/24"],
        ),
        (
            "declarations: [{name: a, network: {ip: 10.5.0.2/24, gateway: 10.5.0.1}}, \
             {name: b, network: {ip: 10.5.0.2/24, gateway: 10.5.0.1}}]",
            &["10.5.0.2", "for a", "for b"],
        ),
    ] {
        let error = refused(&state, yaml).to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error:?} about {yaml}");
        }
    }
}

#[test]
fn the_numbers_of_declarations_and_patterns_are_limited() {
    let list = |count: usize, suffix: &str| {
        let all = (0..count).map(|at| format!("{{name: 'v{at}{suffix}'}}"));
        format!("declarations: [{}]", all.collect::<Vec<_>>().join(", "))
    };
    let state = DeclaredState::default();
    assert!(state.plan_apply(&request(&list(10_000, "")), &[]).is_ok());
    assert!(state.plan_apply(&request(&list(256, "*")), &[]).is_ok());
    for yaml in [list(10_001, ""), list(257, "*")] {
        assert!(refused(&state, &yaml).to_string().contains("limits are 10000 and 256"));
    }
}

#[test]
fn a_pool_keeps_the_addresses_that_it_gave() {
    let mut state = with_pool("declarations: [{name: '*', network: {pool: lan}}]");
    address(&mut state, "a");
    let narrowed =
        "pools: [{name: lan, subnet: 10.0.0.0/24, range: 10.0.0.3-10.0.0.5, gateway: 10.0.0.1}]";
    let error = refused(&state, narrowed).to_string();
    assert!(error.contains("10.0.0.2 of a"), "{error}");
    let gateway =
        "pools: [{name: lan, subnet: 10.0.0.0/24, range: 10.0.0.2-10.0.0.5, gateway: 10.0.0.2}]";
    assert!(refused(&state, gateway).to_string().contains("10.0.0.2 of a"));
    apply(&mut state, "pools: [{name: lan, subnet: 10.0.0.0/24, range: 10.0.0.2-10.0.0.50}]");
    assert_eq!(address(&mut state, "a"), "10.0.0.2/24");
    let used = state.plan_remove_pool("lan", IfRevision::Any).unwrap_err().to_string();
    assert!(used.contains("declaration \"*\""), "{used}");
    let plan = state.plan_remove_declaration("*", IfRevision::Any).unwrap();
    state.commit(&plan);
    let leased = state.plan_remove_pool("lan", IfRevision::Any).unwrap_err().to_string();
    assert!(leased.contains("has leases (1)"), "{leased}");
}

#[test]
fn a_change_with_another_revision_than_expected_is_refused() {
    let mut state = with_pool("declarations: [{name: a}]");
    let declaration = request("declarations: [{name: a, hostname: b}]").declarations.remove(0);
    let put = |state: &DeclaredState, expected| {
        state.plan_put_declaration(declaration.clone(), expected).map(|plan| plan.revision)
    };
    assert_eq!(put(&state, IfRevision::Is(1)), Ok(2));
    for expected in [IfRevision::Is(7), IfRevision::Missing] {
        let changed = DeclareError::RevisionChanged { name: "a".into(), revision: Some(1) };
        assert_eq!(put(&state, expected), Err(changed), "{expected:?}");
    }
    let plan = state.plan_remove_declaration("a", IfRevision::Is(1)).unwrap();
    state.commit(&plan);
    let changed = DeclareError::RevisionChanged { name: "a".into(), revision: None };
    assert_eq!(put(&state, IfRevision::Present), Err(changed));
    assert_eq!(put(&state, IfRevision::Missing), Ok(3), "a revision is never used again");
}

/// Twenty successive requests, each with its own kind of change.
const STEPS: [(&str, bool); 20] = [
    (POOL, false),
    (POOL, false),
    ("declarations: [{name: a}]", false),
    ("declarations: [{name: a, labels: {x: y}}]", false),
    ("declarations: [{name: a, labels: {x: z}}]", false),
    ("declarations: [{name: a, hostname: h}]", false),
    ("declarations: [{name: a, network: {pool: lan}}]", false),
    ("declarations: [{name: a, network: {ip: 10.0.0.9/24, gateway: 10.0.0.1}}]", false),
    (
        "declarations: [{name: a, network: {interfaces: [{name: eth0, pool: lan}]}}, {name: 'b-*'}]",
        false,
    ),
    ("declarations: [{name: 'b-*', drift: off}, {name: '*', network: {mtu: 1400}}]", false),
    ("declarations: [{name: 'b-*', drift: repair}]", false),
    ("declarations: [{name: 'b-*'}]", false),
    ("pools: [{name: wan, subnet: 10.7.0.0/24}]", false),
    ("pools: [{name: wan, subnet: 10.7.0.0/24, mtu: 1300}]", false),
    ("declarations: [{name: c, network: {pool: wan}}]", false),
    ("declarations: [{name: c, network: {pool: wan, dns: [1.1.1.1], search: [a.b]}}]", false),
    ("declarations: [{name: d}]\npools: [{name: wan, subnet: 10.7.0.0/24, mtu: 1300}]", true),
    (
        "pools: [{name: lan, subnet: 10.0.0.0/24}]\ndeclarations: [{name: d, network: {pool: lan}}]",
        true,
    ),
    ("declarations: [{name: d, network: {verify: []}}]", true),
    ("{}", true),
];

#[test]
fn a_dry_run_shows_what_the_apply_does_and_a_second_apply_changes_nothing() {
    let mut state = DeclaredState::default();
    let vms: Vec<_> = ["a", "b-1", "c", "d"].map(vm).into();
    for (at, (yaml, prune)) in STEPS.into_iter().enumerate() {
        let request = ApplyRequest { prune, ..request(yaml) };
        let dry = ApplyRequest { dry_run: true, ..request.clone() };
        let (_, promised) = state.plan_apply(&dry, &vms).unwrap();
        let before: Vec<_> = vms.iter().map(|vm| state.effective(vm)).collect();
        let (plan, done) = state.plan_apply(&request, &vms).unwrap();
        state.commit(&plan);
        assert_eq!((&promised.items, &promised.vms), (&done.items, &done.vms), "step {at}");
        assert_eq!(promised.changed, at != 1, "step {at}: {promised:?}");
        for (vm, before) in vms.iter().zip(before) {
            let is_other = state.effective(vm) != before;
            assert!(!is_other || promised.vms.contains(vm), "step {at}: {vm} is not named");
        }
        let (again, report) = state.plan_apply(&request, &vms).unwrap();
        assert!(again.changes.is_empty() && !report.changed && report.vms.is_empty(), "step {at}");
        assert!(report.items.iter().all(|item| item.action == ApplyAction::Unchanged), "step {at}");
        assert_eq!((again.revision, report.revision), (plan.revision, plan.revision), "step {at}");
    }
    assert!(state.pools().is_empty() && state.declarations().is_empty());
}

#[test]
fn a_report_names_each_difference_and_declarations_without_a_vm() {
    let state = with_pool("declarations: [{name: a, labels: {x: y}, network: {pool: lan}}]");
    let yaml = "declarations: [{name: a, labels: {x: z}, network: {mtu: 1300}}, {name: nobody}, {name: 'no-*'}]";
    let (_, report) = state.plan_apply(&request(yaml), &[vm("a"), vm("b")]).unwrap();
    let diff: Vec<_> = report.items[0]
        .diff
        .iter()
        .map(|one| (one.field.as_str(), one.from.as_deref(), one.to.as_deref()))
        .collect();
    let expected = [
        ("labels.x", Some("\"y\""), Some("\"z\"")),
        ("network.mtu", None, Some("1300")),
        ("network.pool", Some("\"lan\""), None),
    ];
    assert_eq!(diff, expected);
    assert_eq!((report.vms, report.vms_total), (vec![vm("a")], 1));
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    assert!(report.warnings[0].contains("nobody"));
    let many: Vec<_> = (0..15).map(|at| format!("{{name: x{at}}}")).collect();
    let yaml = format!("declarations: [{}]", many.join(", "));
    let (_, report) = state.plan_apply(&request(&yaml), &[vm("a")]).unwrap();
    assert_eq!(report.warnings.len(), 11);
    assert!(report.warnings[10].starts_with("5 more declarations"), "{:?}", report.warnings);
}

#[test]
fn contradictions_between_declarations_are_reported_for_the_vm() {
    let mut state = with_pool(
        "
declarations:
- {name: '*', network: {search: [a.test]}}
- {name: 'web-*', hostname: '{vm}', network: {ip: 10.5.0.2/24, gateway: 10.5.0.1}}
",
    );
    let error = configure(&mut state, "db").unwrap_err().to_string();
    assert!(error.contains("network.dns") && error.contains("search"), "{error}");
    let error = configure(&mut state, "web-a_b").unwrap_err().to_string();
    assert!(error.contains("hostname") || error.contains("dns"), "{error}");
}

#[test]
fn a_full_pool_of_65_000_addresses_is_leased_and_released_in_any_order() {
    let mut state = DeclaredState::default();
    apply(
        &mut state,
        "pools: [{name: big, subnet: 10.0.0.0/16, gateway: 10.0.0.1}]\ndeclarations: [{name: '*', network: {pool: big}}]",
    );
    let needs = state.effective(&vm("x")).needs();
    for at in 0..65_533 {
        let plan = state.plan_leases(&vm(&format!("v{at}")), &needs).unwrap();
        state.commit(&plan);
    }
    let status = state.pool_status(state.pools()["big"].as_ref());
    assert_eq!((status.leased, status.free), (65_533, 0));
    assert!(matches!(state.plan_leases(&vm("x"), &needs), Err(DeclareError::Exhausted { .. })));
    let middle: IpAddr = "10.0.99.7".parse().unwrap();
    let (plan, _) = state.plan_release(Some("big"), middle, |_| false).unwrap();
    assert_eq!(plan.changes, [Change::RemoveLease(middle)]);
    state.commit(&plan);
    let plan = state.plan_leases(&vm("x"), &needs).unwrap();
    let [Change::PutLease(lease)] = plan.changes.as_slice() else { panic!("{plan:?}") };
    assert_eq!(lease.address, middle);
}
