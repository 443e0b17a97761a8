//! Failed changes leave no trace.

use crate::guest::Guest;
use minions_proto::ErrorCode;
use minions_proto::message::ConfigureNetwork;
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};

#[tokio::test]
async fn a_failed_change_leaves_everything_as_it_was() {
    // At the same time, each with a guest of its own: the cases mostly wait.
    let local = LocalSet::new();
    let mut cases = JoinSet::new();
    for (change, step) in [
        // No host has the gateway's address.
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.2/16"], "gateways": ["10.0.0.250"] }] }),
            "verify_gateway",
        ),
        (
            json!({ "interfaces": [{ "addresses": ["2001:db8::2/64"], "gateways": ["2001:db8::250"] }] }),
            "verify_gateway",
        ),
        (
            json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.250", "verify": ["gateway"] }),
            "verify_gateway",
        ),
        // The neighbour already has the address.
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.66/16"], "gateways": ["10.0.0.1"] }] }),
            "addresses",
        ),
        (json!({ "interfaces": [{ "addresses": ["2001:db8::66/64"] }] }), "verify_addresses"),
        // The kernel has no route to the next hop.
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.2/16"] }],
                 "routes": [{ "to": "10.9.9.0/24", "via": "203.0.113.1", "interface": "lo" }] }),
            "routes",
        ),
        // No name server runs on the neighbour.
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.2/16"], "gateways": ["10.0.0.1"] }],
                 "dns": ["10.0.0.1"], "hostname": "after", "mtu": 1420, "verify": ["dns"] }),
            "verify_dns",
        ),
    ] {
        let case = async move {
            let (guest, before) = Guest::with_history().await;
            let error = guest.change(change.clone()).await.unwrap_err();
            assert_eq!(error.code, Some(ErrorCode::NetworkFailed), "{change}: {error:?}");
            let (failed, restored) = (error.step.as_deref(), error.restored);
            assert_eq!((failed, restored), (Some(step), Some(true)), "{error:?}");
            let is_duplicate = error.message.contains("in use by another host");
            let field = is_duplicate.then_some("interfaces[0].addresses[0]");
            assert_eq!(error.field.as_deref(), field, "{error:?}");
            assert_eq!(is_duplicate, change.to_string().contains("66/"), "{change}");
            guest.is_again(&before).await;
            assert_eq!(guest.journal(), "", "{change}");
        };
        cases.spawn_local_on(case, &local);
    }
    local.run_until(cases.join_all()).await;
}

#[tokio::test]
async fn a_base_request_that_fails_halfway_leaves_everything_as_it_was() {
    let (guest, _) = Guest::with_history().await;
    // A read-only file system.
    guest.sh("mount -o remount,ro /etc");
    let before = guest.state();
    let base = ConfigureNetwork {
        ip: "10.0.0.2/16".into(),
        gateway: "10.0.0.1".into(),
        dns: vec!["1.1.1.1".into()],
    };
    let error = guest.agent.call(&base).await.unwrap_err();
    assert_eq!((error.step.as_deref(), error.restored), (Some("dns"), Some(true)), "{error:?}");
    guest.is_again(&before).await;
}

#[tokio::test]
async fn an_interface_that_was_down_is_set_down_again() {
    let guest = Guest::start().await;
    let before = guest.state();
    let change = json!({ "interfaces": [{ "addresses": ["10.0.0.2/16", "2001:db8::2/64"],
                                          "gateways": ["10.0.0.250"] }] });
    let error = guest.change(change).await.unwrap_err();
    assert_eq!(error.restored, Some(true), "{error:?}");
    guest.is_again(&before).await;
}
