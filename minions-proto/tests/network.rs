//! Validation of network changes: every mistake that can be detected without a guest is rejected
//! with the name of its field.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use minions_proto::message::{
    ChangeNetwork, Check, NetworkChanged, NetworkPlan, Selector, decode_reply, encode_request,
};
use minions_proto::{Invalid, Request};
use serde_json::{Value, json};

fn plan(change: Value) -> Result<NetworkPlan, Invalid> {
    serde_json::from_value::<ChangeNetwork>(change).unwrap().plan()
}

#[test]
fn invalid_values_are_rejected_with_their_field() {
    let routes = |routes: Value| json!({ "interfaces": [eth0()], "routes": routes });
    fn eth0() -> Value {
        json!({ "name": "eth0", "addresses": ["10.0.0.2/16", "2001:db8::2/64"] })
    }
    let with = |field: &str, value: Value| {
        let mut interface = eth0();
        interface[field] = value;
        json!({ "interfaces": [interface] })
    };
    let many = |count: usize| -> Value {
        (0..count).map(|at| json!({ "to": format!("10.{}.{}.0/24", at / 256, at % 256), "via": "10.0.0.1" })).collect()
    };
    for (change, field) in [
        (json!({}), "interfaces"),
        (json!({ "ip": "10.0.0.2/16", "mtu": 1500 }), "gateway"),
        (json!({ "gateway": "10.0.0.2", "mtu": 1500 }), "ip"),
        (json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.1", "interfaces": [eth0()] }), "ip"),
        (json!({ "mtu": 1500 }), "mtu"),
        (with("addresses", json!(["10.0.0.2/33"])), "interfaces[0].addresses[0]"),
        (with("addresses", json!(["2001:db8::2/129"])), "interfaces[0].addresses[0]"),
        (with("addresses", json!(["10.0.0.2/16", "224.0.0.1/8"])), "interfaces[0].addresses[1]"),
        (with("addresses", json!(["0.0.0.0/8"])), "interfaces[0].addresses[0]"),
        (with("addresses", json!(["::/64"])), "interfaces[0].addresses[0]"),
        (with("addresses", json!(["ff02::1/64"])), "interfaces[0].addresses[0]"),
        (with("addresses", json!(["10.0.0.2/16", "10.0.0.2/24"])), "interfaces[0].addresses[1]"),
        (with("addresses", json!(vec!["10.0.0.2/16"; 65])), "interfaces[0].addresses"),
        (with("gateways", json!(["10.1.0.1"])), "interfaces[0].gateways[0]"),
        (with("gateways", json!(["10.0.0.2"])), "interfaces[0].gateways[0]"),
        (with("gateways", json!(["10.0.255.255"])), "interfaces[0].gateways[0]"),
        (with("gateways", json!(["224.0.0.1"])), "interfaces[0].gateways[0]"),
        (with("gateways", json!(["10.0.0.1", "10.0.0.9"])), "interfaces[0].gateways[1]"),
        (with("gateways", json!(["10.0.0.1", "2001:db9::1"])), "interfaces[0].gateways[1]"),
        (with("mac", json!("52:54:00:00:00:01")), "interfaces[0].mac"),
        (with("mtu", json!(1279)), "interfaces[0].mtu"),
        (with("mtu", json!(65_536)), "interfaces[0].mtu"),
        (with("name", json!("../eth0")), "interfaces[0].name"),
        (json!({ "interfaces": [{ "mac": "ff:ff:ff:ff:ff:ff" }] }), "interfaces[0].mac"),
        (json!({ "interfaces": [eth0(), eth0()] }), "interfaces[1]"),
        (
            json!({ "interfaces": [eth0(), { "name": "eth1", "addresses": ["10.0.0.2/8"] }] }),
            "interfaces[1].addresses[0]",
        ),
        (json!({ "interfaces": vec![eth0(); 17] }), "interfaces"),
        (routes(many(257)), "routes"),
        (routes(many(1000)), "routes"),
        (routes(json!([{ "to": "10.9.0.0/33", "via": "10.0.0.1" }])), "routes[0].to"),
        (routes(json!([{ "to": "10.9.0.1/16", "via": "10.0.0.1" }])), "routes[0].to"),
        (routes(json!([{ "to": "224.0.0.0/4", "via": "10.0.0.1" }])), "routes[0].to"),
        (routes(json!([{ "to": "10.9.0.0/16", "via": "10.7.0.1" }])), "routes[0].via"),
        (
            routes(json!([{ "to": "10.9.0.0/16", "via": "10.7.0.1", "interface": "eth0" }])),
            "routes[0].via",
        ),
        (routes(json!([{ "to": "10.9.0.0/16", "via": "2001:db8::1" }])), "routes[0].via"),
        (
            routes(json!([{ "to": "10.9.0.0/16", "interface": "eth0", "on_link": true }])),
            "routes[0].on_link",
        ),
        (
            routes(
                json!([{ "to": "10.9.0.0/16", "via": "10.0.0.1" }, { "to": "10.9.0.0/16", "via": "10.0.0.9" }]),
            ),
            "routes[1]",
        ),
        (json!({ "routes": [{ "to": "10.9.0.0/16", "via": "10.0.0.1" }] }), "routes[0].interface"),
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.2/16"], "gateways": ["10.0.0.1"] }],
                 "routes": [{ "to": "0.0.0.0/0", "via": "10.0.0.9" }] }),
            "routes[0].metric",
        ),
        (json!({ "dns": ["0.0.0.0"] }), "dns[0]"),
        (json!({ "dns": vec!["1.1.1.1"; 17] }), "dns"),
        (json!({ "search": ["example.org"] }), "dns"),
        (json!({ "dns": ["1.1.1.1"], "search": ["a", "exa mple"] }), "search[1]"),
        (json!({ "dns": ["1.1.1.1"], "search": ["a\nnameserver 6.6.6.6"] }), "search[0]"),
        (json!({ "hostname": "-web" }), "hostname"),
        (json!({ "hostname": "web 1" }), "hostname"),
        (json!({ "hostname": "web-1", "confirm_within_ms": 999 }), "confirm_within_ms"),
        (json!({ "hostname": "web-1", "confirm_within_ms": 3_600_001 }), "confirm_within_ms"),
    ] {
        let invalid = plan(change.clone()).expect_err(&change.to_string());
        assert_eq!(invalid.field, field, "{change}: {invalid}");
    }
}

#[test]
fn the_maximum_number_of_routes_and_next_hops_in_any_subnet_are_accepted() {
    let routes: Vec<_> = (0..256)
        .map(|at| json!({ "to": format!("172.{}.{}.0/24", 16 + at / 256, at % 256), "via": "10.9.0.1" }))
        .collect();
    let addresses = ["10.0.0.2/24", "10.9.0.2/24"];
    let plan =
        plan(json!({ "interfaces": [{ "addresses": addresses }], "routes": routes })).unwrap();
    assert_eq!(plan.routes.unwrap().len(), 256);
}

#[test]
fn a_gateway_outside_of_every_subnet_needs_a_route_on_its_link() {
    let interface =
        json!({ "name": "eth0", "addresses": ["203.0.113.7/32"], "gateways": ["10.0.0.1"] });
    let without = json!({ "interfaces": [interface] });
    assert_eq!(plan(without).unwrap_err().field, "interfaces[0].gateways[0]");
    let with = json!({ "interfaces": [interface], "routes": [{ "to": "10.0.0.1/32", "interface": "eth0" }] });
    assert!(plan(with).is_ok());
}

#[test]
fn default_checks_depend_on_the_form_of_the_request() {
    let all = |change| plan(change).unwrap().checks;
    let interfaces = json!([{ "addresses": ["10.0.0.2/16"] }]);
    let usual = [Check::Link, Check::Addresses, Check::Route, Check::Gateway];
    assert_eq!(all(json!({ "interfaces": interfaces })), usual);
    assert_eq!(all(json!({ "interfaces": interfaces, "verify": [] })), []);
    assert_eq!(all(json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.1", "mtu": 1500 })), []);
    let asked = json!({ "hostname": "a", "verify": ["dns", "link", "dns"] });
    assert_eq!(all(asked), [Check::Link, Check::Dns]);
}

#[test]
fn a_route_without_an_interface_uses_the_one_with_its_next_hop() {
    let change = json!({
        "interfaces": [{ "name": "eth0", "addresses": ["10.0.0.2/24"] },
                       { "mac": "52:54:00:00:00:02", "addresses": ["10.1.0.2/24"] }],
        "routes": [{ "to": "10.9.0.0/16", "via": "10.1.0.1" }],
    });
    let routes = plan(change).unwrap().routes.unwrap();
    assert_eq!(routes[0].selector, Selector::Mac([0x52, 0x54, 0, 0, 0, 2]));
}

#[test]
fn the_form_of_a_request_is_determined_by_its_fields() {
    let decode = |text: &str| Request::decode(text.as_bytes());
    let base = r#"{"type":"configure_network","ip":"10.0.0.2/16","gateway":"10.0.0.1","dns":[]"#;
    assert!(matches!(decode(&format!("{base}}}")), Ok(Request::ConfigureNetwork(_))));
    assert!(matches!(decode(&format!(r#"{base},"later":1}}"#)), Ok(Request::ConfigureNetwork(_))));
    for more in [r#""mtu":1500"#, r#""dry_run":false"#, r#""verify":[]"#, r#""routes":[]"#] {
        let Ok(Request::ChangeNetwork(change)) = decode(&format!("{base},{more}}}")) else {
            panic!("{more}");
        };
        let frame = encode_request(&*change).unwrap();
        assert_eq!(Request::decode(&frame[4..]).unwrap(), Request::ChangeNetwork(change));
    }
    let error = decode(r#"{"type":"configure_network","ip":"10.0.0.2/16"}"#).unwrap_err();
    assert!(error.to_string().contains("missing field `gateway`"), "{error}");
}

#[test]
fn a_base_agents_reply_has_only_a_message() {
    let reply = br#"{"status":"ok","message":"network configured"}"#;
    let changed: NetworkChanged = decode_reply(reply).unwrap();
    assert_eq!((changed.message.as_str(), changed.changed), ("network configured", None));
}
