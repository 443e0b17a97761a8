//! Interfaces that cannot have the requested settings, and the names by which interfaces are found.

use crate::guest::Guest;
use minions_proto::ErrorCode;
use serde_json::{Value, json};

const BRIDGE: &str = "ip link add br0 type bridge; ip link set br0 address 52:54:00:00:00:01 up
    ip link set eth0 up; ip link set eth0 master br0
    ip link property add dev eth0 altname enp0s99";

const READ_ONLY_SETTINGS: &str =
    "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys";

fn addresses(name: &str, addresses: &[&str]) -> Value {
    json!({ "interfaces": [{ "name": name, "addresses": addresses }] })
}

fn whats(changed: &minions_proto::message::NetworkChanged) -> Vec<&str> {
    changed.changes.iter().flatten().map(|change| change.what.as_str()).collect()
}

#[tokio::test]
async fn a_bridge_port_is_refused_and_its_bridge_named() {
    let guest = Guest::start().await;
    guest.sh(BRIDGE);
    let before = guest.sh("ip -4 addr; ip route");
    for (change, field) in [
        (addresses("eth0", &["10.0.0.2/16"]), "interfaces[0].name"),
        (addresses("enp0s99", &["10.0.0.2/16"]), "interfaces[0].name"),
        (
            json!({ "interfaces": [{ "name": "eth0", "gateways": ["10.0.0.1"] }] }),
            "interfaces[0].name",
        ),
        (
            json!({ "routes": [{ "to": "10.9.0.0/16", "interface": "eth0" }] }),
            "routes[0].interface",
        ),
    ] {
        let error = guest.change(change.clone()).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{change}: {error:?}");
        assert_eq!(error.field.as_deref(), Some(field), "{change}: {error:?}");
        assert!(error.message.contains("configure br0 instead"), "{change}: {error:?}");
    }
    assert_eq!(guest.sh("ip -4 addr; ip route"), before);
    // A port has its own MTU; the link-layer address selects the bridge.
    let mtu = json!({ "interfaces": [{ "name": "eth0", "mtu": 1400 }] });
    guest.change(mtu).await.unwrap();
    let by_mac = json!({ "interfaces": [{ "mac": "52:54:00:00:00:01", "addresses": ["10.0.0.2/16"],
                                          "gateways": ["10.0.0.1"] }] });
    guest.change(by_mac).await.unwrap();
    assert!(guest.sh("ip -4 addr show dev br0").contains("10.0.0.2/16"));
}

#[tokio::test]
async fn if_all_interfaces_are_ports_the_error_names_the_bridge() {
    let guest = Guest::start().await;
    guest.sh(&format!("{BRIDGE}; ip link set eth1 master br0"));
    let change = json!({ "interfaces": [{ "addresses": ["10.0.0.2/16"] }] });
    let error = guest.change(change).await.unwrap_err();
    assert_eq!(error.code, Some(ErrorCode::NetworkFailed), "{error:?}");
    assert!(error.message.contains("eth0 is a port of br0; configure br0 instead"), "{error:?}");
}

#[tokio::test]
async fn an_interface_is_found_by_an_alternative_name() {
    let guest = Guest::start().await;
    let long = "a-name-that-is-longer-than-fifteen-bytes";
    guest.sh(&format!("ip link property add dev eth0 altname enp0s99 altname {long}"));
    for name in ["enp0s99", long] {
        guest.change(addresses(name, &["10.0.0.2/16"])).await.unwrap();
        assert!(guest.sh("ip -4 addr show dev eth0").contains("10.0.0.2/16"), "{name}");
    }
    let twice = json!({ "interfaces": [{ "name": "eth0", "mtu": 1400 }, { "name": "enp0s99" }] });
    let error = guest.change(twice).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("interfaces[1]"), "{error:?}");
    let route = json!({ "routes": [{ "to": "10.9.0.0/16", "interface": "enp0s99" }] });
    guest.change(route).await.unwrap();
}

#[tokio::test]
async fn read_only_settings_do_not_prevent_an_ipv4_configuration() {
    let guest = Guest::start().await;
    guest.sh(READ_ONLY_SETTINGS);
    let v4 = addresses("eth0", &["10.0.0.2/16"]);
    let changed = guest.change(v4.clone()).await.unwrap();
    assert!(!whats(&changed).contains(&"accept_ra"), "{changed:?}");
    assert_eq!(guest.change(v4).await.unwrap().changed, Some(false));

    // With IPv6, routers on the link could add their own addresses and routes.
    guest.sh("while ip -6 addr | grep -q tentative; do sleep 0.05; done");
    let before = guest.state();
    let error = guest.change(addresses("eth0", &["2001:db8::2/64"])).await.unwrap_err();
    let (step, restored) = (error.step.as_deref(), error.restored);
    assert_eq!((step, restored), (Some("interface"), Some(true)), "{error:?}");
    guest.is_again(&before).await;
}

#[tokio::test]
async fn read_only_settings_with_the_wanted_value_are_accepted() {
    let guest = Guest::start().await;
    guest.sh(&format!("echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_ra; {READ_ONLY_SETTINGS}"));
    guest.change(addresses("eth0", &["2001:db8::2/64"])).await.unwrap();
}

#[tokio::test]
async fn ipv6_settings_for_an_interface_without_ipv6_are_refused() {
    let guest = Guest::start().await;
    guest.sh("echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6");
    let before = guest.state();
    for change in [
        addresses("eth0", &["10.0.0.2/16", "2001:db8::2/64"]),
        json!({ "interfaces": [{ "name": "eth0", "gateways": ["fe80::1"] }] }),
        json!({ "routes": [{ "to": "2001:db8:7::/48", "interface": "eth0" }] }),
    ] {
        let error = guest.change(change.clone()).await.unwrap_err();
        let (step, restored) = (error.step.as_deref(), error.restored);
        assert_eq!((step, restored), (Some("plan"), Some(true)), "{change}: {error:?}");
        assert!(error.message.contains("IPv6 is off in this guest on eth0"), "{change}: {error:?}");
    }
    assert_eq!(guest.state(), before);
    guest.change(addresses("eth0", &["10.0.0.2/16"])).await.unwrap();
}
