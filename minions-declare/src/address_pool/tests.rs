//! Wrong pools, and the addresses that pools give.

use super::*;

fn pool(json: &str) -> Result<AddressPool, Invalid> {
    let pool: Pool = serde_json::from_str(json).unwrap();
    AddressPool::parse("pools[0]", &pool)
}

#[test]
fn a_wrong_pool_is_refused_with_the_field_and_what_would_be_right() {
    for (json, field, reason) in [
        (r#"{"subnet":"10.0.0.0/16"}"#, "name", "1 to 63 characters"),
        (r#"{"name":"a b","subnet":"10.0.0.0/16"}"#, "name", "1 to 63 characters"),
        (r#"{"name":"a","subnet":"10.0.0.1/16"}"#, "subnet", "the subnet is 10.0.0.0/16"),
        (r#"{"name":"a","subnet":"10.0.0.0"}"#, "subnet", "as 10.0.0.0/16"),
        (r#"{"name":"a","subnet":"10.0.0.0/16","gateway":"10.1.0.1"}"#, "gateway", "10.0.0.0/16"),
        (r#"{"name":"a","subnet":"10.0.0.0/16","gateway":"10.0.0.0"}"#, "gateway", "host"),
        (
            r#"{"name":"a","subnet":"10.0.0.0/24","range":"10.0.0.2-10.0.1.9"}"#,
            "range",
            "10.0.0.0/24",
        ),
        (r#"{"name":"a","subnet":"10.0.0.0/24","range":"10.0.0.9-10.0.0.2"}"#, "range", "lower"),
        (r#"{"name":"a","subnet":"10.0.0.0/24","range":"10.0.0.9"}"#, "range", "hyphen"),
        (
            r#"{"name":"a","subnet":"10.0.0.0/24","reserved":["10.0.0.9","x"]}"#,
            "reserved[1]",
            "IP address",
        ),
        (r#"{"name":"a","subnet":"10.0.0.0/24","dns":["nope"]}"#, "dns[0]", "nope"),
        (r#"{"name":"a","subnet":"10.0.0.0/24","mtu":3}"#, "mtu", "1280"),
        (
            r#"{"name":"a","subnet":"10.0.0.0/24","release_after_secs":99999999}"#,
            "release_after_secs",
            "0 to",
        ),
        (
            r#"{"name":"a","subnet":"10.0.0.0/30","gateway":"10.0.0.1","reserved":["10.0.0.2"]}"#,
            "range",
            "no address",
        ),
    ] {
        let error = pool(json).unwrap_err();
        assert_eq!(error.field, format!("pools[0].{field}"), "{json}: {error}");
        assert!(error.reason.contains(reason), "{json}: {error}");
    }
}

#[test]
fn gateway_and_reserved_addresses_are_never_given() {
    let pool = pool(
        r#"{"name":"a","subnet":"10.0.0.0/29","gateway":"10.0.0.1","reserved":["10.0.0.3-10.0.0.4"]}"#,
    )
    .unwrap();
    let given: Vec<_> = (0..8)
        .filter(|host| pool.all_addresses().contains(number([10, 0, 0, *host].into())))
        .collect();
    assert_eq!(given, [2, 5, 6]);
}

#[test]
fn an_ipv6_subnet_gives_all_but_its_first_address() {
    let pool = pool(r#"{"name":"a","subnet":"2001:db8::/64","gateway":"2001:db8::1"}"#).unwrap();
    let first = pool.all_addresses().first(|_| false).unwrap();
    assert_eq!(pool.with_prefix(pool.address(first)), "2001:db8::2/64");
    assert_eq!(pool.all_addresses().count(), u64::MAX - 1);
}

#[test]
fn pools_of_one_link_share_the_subnet_and_differ_in_the_range() {
    let of = |name: &str, subnet: &str, range: &str| {
        pool(&format!(r#"{{"name":"{name}","subnet":"{subnet}","range":"{range}"}}"#)).unwrap()
    };
    let a = of("a", "10.0.0.0/16", "10.0.0.2-10.0.0.9");
    assert_eq!(a.conflict_with(&of("b", "10.0.0.0/16", "10.0.0.10-10.0.0.20")), None);
    assert_eq!(a.conflict_with(&of("b", "10.1.0.0/16", "10.1.0.2-10.1.0.9")), None);
    for (subnet, range) in
        [("10.0.0.0/16", "10.0.0.9-10.0.0.20"), ("10.0.1.0/24", "10.0.1.2-10.0.1.9")]
    {
        let reason = a.conflict_with(&of("b", subnet, range)).unwrap();
        assert!(reason.contains("\"a\"") && reason.contains("\"b\""), "{reason}");
    }
}
