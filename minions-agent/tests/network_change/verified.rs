//! A check is reported as passed only if it had an object.
//!
//! The cases of a test run at the same time, each with a guest of its own: they mostly wait.

use crate::guest::Guest;
use minions_proto::ErrorCode;
use minions_proto::message::{Check, NetworkChanged};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

const UNUSED_V4: &str = "10.0.0.98";
const UNUSED_V6: &str = "2001:db8::98";

fn verified(changed: &NetworkChanged) -> &[Check] {
    changed.verified.as_deref().unwrap()
}

fn default_route(to: &str, via: &str, on_link: bool, metric: u32) -> Value {
    json!({ "to": to, "via": via, "interface": "eth0", "on_link": on_link, "metric": metric })
}

#[tokio::test]
async fn a_dead_next_hop_is_detected_for_every_form_of_default_route() {
    let local = LocalSet::new();
    let mut cases = JoinSet::new();
    for (addresses, gateways, route) in [
        ("10.77.0.2/32", vec![], default_route("0.0.0.0/0", UNUSED_V4, true, 0)),
        ("10.0.0.2/16", vec![], default_route("0.0.0.0/0", UNUSED_V4, false, 0)),
        ("10.0.0.2/16", vec!["10.0.0.1"], default_route("0.0.0.0/0", UNUSED_V4, false, 200)),
        ("2001:db8:77::2/128", vec![], default_route("::/0", UNUSED_V6, true, 0)),
        ("2001:db8::2/64", vec![], default_route("::/0", UNUSED_V6, false, 0)),
        ("2001:db8::2/64", vec![], default_route("::/0", "fe80::98", false, 0)),
    ] {
        let case = async move {
            let (guest, before) = Guest::with_history().await;
            let interface =
                json!({ "name": "eth0", "addresses": [addresses], "gateways": gateways });
            let change = json!({ "interfaces": [interface], "routes": [route] });
            let error = guest.change(change.clone()).await.unwrap_err();
            let (step, restored) = (error.step.as_deref(), error.restored);
            assert_eq!((step, restored), (Some("verify_gateway"), Some(true)), "{error:?}");
            guest.is_again(&before).await;
        };
        cases.spawn_local_on(case, &local);
    }
    local.run_until(cases.join_all()).await;
}

#[tokio::test]
async fn an_on_link_next_hop_outside_all_subnets_is_verified_if_it_answers() {
    let guest = Guest::start().await;
    // A router for both families with a route back to the guest.
    guest.sh("nsenter --net=/run/netns/peer sh -ec '
        ip route add 10.77.0.2 dev peer0; ip route add 2001:db8:77::2 dev peer0'");
    let change = json!({
        "interfaces": [{ "name": "eth0", "addresses": ["10.77.0.2/32", "2001:db8:77::2/128"] }],
        "routes": [default_route("0.0.0.0/0", "10.0.0.1", true, 0),
                   default_route("::/0", "2001:db8::1", true, 0)],
    });
    let changed = guest.change(change).await.unwrap();
    let all = [Check::Link, Check::Addresses, Check::Route, Check::Gateway];
    assert_eq!(verified(&changed), all);
}

#[tokio::test]
async fn a_default_check_without_an_object_is_left_out() {
    let guest = Guest::start().await;
    for (change, passed) in [
        (json!({ "interfaces": [{ "name": "eth0", "mtu": 1400 }] }), &[Check::Link][..]),
        (
            json!({ "interfaces": [{ "name": "eth0", "addresses": ["10.0.0.2/16"] }] }),
            &[Check::Link, Check::Addresses],
        ),
        // A default route directly to the link has no next hop.
        (
            json!({ "interfaces": [{ "name": "eth0", "addresses": ["10.0.0.2/16"] }],
                    "routes": [{ "to": "0.0.0.0/0", "interface": "eth0" }] }),
            &[Check::Link, Check::Addresses],
        ),
        (json!({ "hostname": "web-1" }), &[]),
    ] {
        let changed = guest.change(change.clone()).await.unwrap();
        assert_eq!(verified(&changed), passed, "{change}");
        // The same request again changes nothing and verifies the same.
        let again = guest.change(change.clone()).await.unwrap();
        assert_eq!((again.changed, verified(&again)), (Some(false), passed), "{change}");
    }
}

#[tokio::test]
async fn a_named_check_without_an_object_is_refused() {
    let (guest, before) = Guest::with_history().await;
    for (check, change) in [
        ("link", json!({ "hostname": "web-1" })),
        ("addresses", json!({ "hostname": "web-1" })),
        ("gateway", json!({ "hostname": "web-1" })),
        ("addresses", json!({ "interfaces": [{ "name": "eth0", "addresses": [] }] })),
        ("gateway", json!({ "interfaces": [{ "name": "eth0", "addresses": ["10.0.0.2/16"] }] })),
        ("route", json!({ "interfaces": [{ "name": "eth0", "addresses": ["10.0.0.2/16"] }] })),
        // The only default routes use the other interface.
        ("gateway", json!({ "interfaces": [{ "name": "eth1" }] })),
    ] {
        for dry_run in [false, true] {
            let mut change = change.clone();
            change["verify"] = json!([check]);
            change["dry_run"] = json!(dry_run);
            let error = guest.change(change.clone()).await.unwrap_err();
            assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{change}: {error:?}");
            assert_eq!(error.field.as_deref(), Some("verify"), "{change}: {error:?}");
            assert!(error.message.contains(&format!("`{check}`")), "{change}: {error:?}");
        }
    }
    guest.is_again(&before).await;
}

#[tokio::test]
async fn a_named_check_covers_settings_that_the_interface_keeps() {
    let gateway = json!({ "interfaces": [{ "name": "eth0" }], "verify": ["gateway"] });
    let addresses = json!({ "interfaces": [{ "name": "eth0" }], "verify": ["addresses"] });
    let local = LocalSet::new();
    let mut cases = JoinSet::new();
    for (routes, answers) in [
        ("ip route add default via 10.0.0.1", true),
        ("ip route add default via 10.0.0.98", false),
        ("ip -6 route add default via 2001:db8::1", true),
        ("ip -6 route add default via 2001:db8::98", false),
        ("ip route add default nexthop via 10.0.0.1 nexthop via 10.0.0.98", false),
        ("ip route add default via inet6 fe80::98 dev eth0", false),
        ("ip route add default via 203.0.113.9 dev eth0 onlink", false),
    ] {
        let (gateway, addresses) = (gateway.clone(), addresses.clone());
        let case = async move {
            let guest = Guest::start().await;
            guest.sh(&format!(
                "ip link set eth0 up; ip addr add 10.0.0.2/16 dev eth0
                ip addr add 2001:db8::2/64 nodad dev eth0; {routes}"
            ));
            match guest.change(gateway).await {
                Ok(changed) => {
                    assert!(answers, "{routes}");
                    assert_eq!(verified(&changed), [Check::Gateway]);
                }
                Err(error) => {
                    assert!(!answers, "{routes}: {error:?}");
                    assert_eq!(
                        error.step.as_deref(),
                        Some("verify_gateway"),
                        "{routes}: {error:?}"
                    );
                }
            }
            let changed = guest.change(addresses).await.unwrap();
            assert_eq!(verified(&changed), [Check::Addresses]);
        };
        cases.spawn_local_on(case, &local);
    }
    local.run_until(cases.join_all()).await;
}

/// Server that answers one query on port 53 of a link-local address, and ends after at most a minute.
const NAME_SERVER: &str = "
import signal, socket
signal.alarm(60)
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(('fe80::53', 53, 0, socket.if_nametoindex('peer0')))
open('/run/listens', 'w')
question, asker = server.recvfrom(512)
server.sendto(question[:2] + b'\\x80' + question[3:], asker)
";

#[tokio::test]
async fn a_link_local_name_server_is_queried_over_its_link() {
    let guest = Guest::start().await;
    guest.sh("ip link set eth0 up; ip link set eth1 up");
    guest.settled().await;
    guest.sh(&format!(
        "cat > /run/server.py <<'END'{NAME_SERVER}END
        nsenter --net=/run/netns/peer sh -ec '
            ip addr add fe80::53/64 dev peer0 nodad
            python3 /run/server.py > /dev/null 2>&1 &'
        until [ -e /run/listens ]; do sleep 0.02; done"
    ));
    let change = json!({ "interfaces": [{ "name": "eth0", "addresses": ["10.0.0.2/16"] }],
                         "dns": ["fe80::53"], "verify": ["dns"] });
    let changed = guest.change(change).await.unwrap();
    assert_eq!(verified(&changed), [Check::Dns]);
}
