//! A request is applied exactly, or refused before anything is changed.

use crate::guest::{Guest, both};
use minions_proto::ErrorCode;
use minions_proto::message::{Check, ConfigureNetwork, ReadNetwork};
use serde_json::{Value, json};

#[tokio::test]
async fn the_configuration_read_back_is_the_requested_one() {
    let guest = Guest::start().await;
    let changed = guest.change(both()).await.unwrap();
    assert_eq!((changed.message.as_str(), changed.changed), ("network configured", Some(true)));
    let checks = [Check::Link, Check::Addresses, Check::Route, Check::Gateway];
    assert_eq!(changed.verified.as_deref(), Some(&checks[..]));
    assert_eq!(changed.dns_owner.as_deref(), Some("resolv_conf"));

    let state = guest.agent.call(&ReadNetwork {}).await.unwrap();
    assert_eq!((state.hostname.as_str(), &state.pending), ("web-1", &None));
    assert_eq!(state.dns.servers, ["1.1.1.1", "2606:4700:4700::1111"]);
    assert_eq!(state.dns.search, ["example.org", "a.example"]);
    let interface = |name: &str| {
        let found = state.interfaces.iter().find(|one| one.name == name).unwrap();
        let addresses = found.addresses.iter().filter(|one| !one.starts_with("fe80:"));
        (found.mtu, addresses.cloned().collect::<Vec<_>>())
    };
    let all = |addresses: &[&str]| addresses.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
    assert_eq!(interface("eth0"), (1420, all(&["10.0.0.2/16", "10.0.0.3/16", "2001:db8::2/64"])));
    assert_eq!(interface("eth1"), (1500, all(&["10.1.0.2/24", "2001:db8:1::2/64"])));
    let mut routes: Vec<_> = state
        .routes
        .iter()
        .filter(|route| route.protocol == "static")
        .map(|route| {
            let (via, over) =
                (route.via.as_deref().unwrap_or("-"), route.interface.as_ref().unwrap());
            format!("{} {via} {over} {} {}", route.to, route.metric, route.on_link)
        })
        .collect();
    routes.sort();
    assert_eq!(
        routes,
        [
            "0.0.0.0/0 10.0.0.1 eth0 0 false",
            "172.16.0.0/12 10.0.0.1 eth0 0 false",
            "172.16.0.0/12 10.1.0.1 eth1 200 false",
            "192.0.2.0/24 - eth1 0 false",
            "198.51.100.0/24 203.0.113.1 eth1 0 true",
            "2001:db8:7::/48 2001:db8:1::1 eth1 1024 false",
            "::/0 2001:db8:1::1 eth1 2000 false",
            "::/0 2001:db8::1 eth0 1024 false",
        ]
    );
    assert_eq!(guest.journal(), "");
}

#[tokio::test]
async fn a_repeated_request_changes_nothing_and_says_so() {
    let guest = Guest::start().await;
    guest.change(both()).await.unwrap();
    let once = guest.settled().await;
    let again = guest.change(both()).await.unwrap();
    assert_eq!((again.changed, again.changes.as_deref()), (Some(false), Some(&[][..])));
    assert_eq!(guest.state(), once);
    // The base form reports it too, in addition to its fixed message.
    let base = ConfigureNetwork {
        ip: "10.0.0.2/16".into(),
        gateway: "10.0.0.1".into(),
        dns: vec!["1.1.1.1".into()],
    };
    assert_eq!(guest.agent.call(&base).await.unwrap().changed, Some(true));
    let twice = guest.agent.call(&base).await.unwrap();
    assert_eq!((twice.message.as_str(), twice.changed), ("network configured", Some(false)));
}

#[tokio::test]
async fn a_dry_run_reports_the_differences_and_changes_nothing() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["dry_run"] = json!(true);
    let dry = guest.change(change).await.unwrap();
    guest.is_again(&before).await;
    let real = guest.change(both()).await.unwrap();
    assert_eq!(dry.changes, real.changes);
    let changes = serde_json::to_value(real.changes.unwrap()).unwrap();
    let has = |change: Value| changes.as_array().unwrap().contains(&change);
    assert!(has(json!({ "what": "hostname", "from": "before", "to": "web-1" })), "{changes:#}");
    assert!(has(json!({ "what": "mtu", "interface": "eth0", "from": "1500", "to": "1420" })));
    assert!(has(json!({ "what": "accept_ra", "interface": "eth0", "from": "2", "to": "0" })));
    assert!(has(json!({ "what": "address", "interface": "eth0", "from": "192.168.7.7/24" })));
    assert!(has(json!({ "what": "address", "interface": "eth0", "to": "10.0.0.2/16" })));
    assert!(has(json!({ "what": "route", "interface": "eth0", "to": "0.0.0.0/0 via 10.0.0.1" })));
    assert!(has(json!({ "what": "search", "to": "example.org a.example" })));
}

#[tokio::test]
async fn an_invalid_request_names_its_field_and_changes_nothing() {
    let (guest, before) = Guest::with_history().await;
    for (change, field) in [
        (
            json!({ "interfaces": [{ "name": "eth9", "addresses": ["10.0.0.2/16"] }] }),
            "interfaces[0].name",
        ),
        (
            json!({ "interfaces": [{ "mac": "52:54:00:00:00:99", "addresses": [] }] }),
            "interfaces[0].mac",
        ),
        (
            json!({ "interfaces": [{ "name": "eth0", "mtu": 1400 }, { "mac": "52:54:00:00:00:01" }] }),
            "interfaces[1]",
        ),
        (
            json!({ "interfaces": [{ "name": "eth0", "mtu": 1400 }],
                 "routes": [{ "to": "10.9.0.0/16", "interface": "eth9" }] }),
            "routes[0].interface",
        ),
        (json!({ "interfaces": [{ "addresses": ["10.0.0.2/33"] }] }), "interfaces[0].addresses[0]"),
    ] {
        let error = guest.change(change.clone()).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{change}: {error:?}");
        assert_eq!(error.field.as_deref(), Some(field), "{change}: {error:?}");
    }
    guest.is_again(&before).await;
}
