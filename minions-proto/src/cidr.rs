//! Rules for addresses in a network configuration.
//!
//! A wrong address costs more than a rejected request: the guest is unreachable over the network
//! until an operator notices. So every mistake that can be detected without the guest is rejected
//! before the guest is changed, with a message that says what would be right.

use crate::error::Invalid;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// Address that an interface can have, with its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InterfaceAddress(IpNet);

impl InterfaceAddress {
    /// Parses `10.0.0.2/16` or `2001:db8::2/64`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `field` if the text has another form, if the prefix length is out of range,
    /// or if no host can have the address (unspecified, multicast, loopback, IPv4-mapped, or the
    /// network or broadcast address of an IPv4 subnet).
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let invalid = |reason: &str| Invalid::value(field, text, reason);
        let (address, prefix) = text
            .split_once('/')
            .ok_or_else(|| invalid("add the prefix length, as in 10.0.0.2/16"))?;
        let address = parse_address(address)
            .ok_or_else(|| invalid("not an IP address with a prefix length, as in 10.0.0.2/16"))?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = parse_prefix(prefix)
            .filter(|prefix| (1..=max).contains(prefix))
            .ok_or_else(|| invalid(&format!("the prefix length must be 1 to {max}")))?;
        if let Some(reason) = unusable(address) {
            return Err(invalid(reason));
        }
        let net = IpNet::new(address, prefix)
            .map_err(|_| invalid(&format!("the prefix length must be 1 to {max}")))?;
        match reserved(&net, address) {
            Some(reason) => Err(invalid(reason)),
            None => Ok(Self(net)),
        }
    }

    /// Returns the address without its prefix length.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// Returns the prefix length, 1 to 32 or 128.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Reports whether `other` is in the subnet.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        self.0.contains(&other)
    }

    /// Returns the address with all host bits set, which an IPv4 interface has as its broadcast
    /// address.
    #[must_use]
    pub fn broadcast(&self) -> IpAddr {
        self.0.broadcast()
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses the next hop of a default route over an interface with `address`.
///
/// # Errors
///
/// [`Invalid`] for `field`: not an address, of another address family, not a host's address, the
/// interface's own, or outside of its subnet (an IPv6 link-local router is always accepted).
pub fn check_gateway(
    field: &str,
    text: &str,
    address: &InterfaceAddress,
) -> Result<IpAddr, Invalid> {
    let invalid = |reason: &str| Invalid::value(field, text, reason);
    let gateway = parse_address(text)
        .ok_or_else(|| invalid("not an IP address; give it without a prefix length"))?;
    if gateway.is_ipv4() != address.address().is_ipv4() {
        return Err(invalid(&format!("must be of the same address family as {address}")));
    }
    if let Some(reason) = unusable(gateway) {
        return Err(invalid(reason));
    }
    if gateway == address.address() {
        return Err(invalid("is the interface's own address"));
    }
    if !address.0.contains(&gateway) && !is_link_local_v6(gateway) {
        return Err(invalid(&format!("outside the subnet {}", address.0.trunc())));
    }
    match reserved(&address.0, gateway) {
        Some(reason) => Err(invalid(reason)),
        None => Ok(gateway),
    }
}

/// Parses a route's next hop, in any subnet.
///
/// # Errors
///
/// [`Invalid`] for `field`: not an address, or not a host's.
pub fn check_next_hop(field: &str, text: &str) -> Result<IpAddr, Invalid> {
    let address = parse_address(text).ok_or_else(|| {
        Invalid::value(field, text, "not an IP address; give it without a prefix length")
    })?;
    match unusable(address) {
        Some(reason) => Err(Invalid::value(field, text, reason)),
        None => Ok(address),
    }
}

/// Parses a route's destination: `10.1.0.0/16`, `0.0.0.0/0`, `::/0`.
///
/// # Errors
///
/// [`Invalid`] for `field`: another form, bits set after the prefix, or a destination that is never
/// routed (multicast, loopback).
pub fn parse_destination(field: &str, text: &str) -> Result<IpNet, Invalid> {
    let invalid = |reason: &str| Invalid::value(field, text, reason);
    let (address, prefix) = text
        .split_once('/')
        .ok_or_else(|| invalid("add the prefix length, as in 10.1.0.0/16 or 0.0.0.0/0"))?;
    let address =
        parse_address(address).ok_or_else(|| invalid("not an IP network, as in 10.1.0.0/16"))?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let out_of_range = || invalid(&format!("the prefix length must be 0 to {max}"));
    let prefix = parse_prefix(prefix).ok_or_else(out_of_range)?;
    let net = IpNet::new(address, prefix).map_err(|_| out_of_range())?;
    if net.trunc() != net {
        return Err(invalid(&format!("has bits set after the prefix; write {}", net.trunc())));
    }
    if net.prefix_len() > 0
        && let Some(reason) = unusable(address).filter(|_| !address.is_unspecified())
    {
        return Err(invalid(reason));
    }
    Ok(net)
}

/// Parses an address by the grammar of `IpAddr`.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// Parses decimal digits only; `u8::from_str` also accepts `+8`.
fn parse_prefix(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Returns the reason why no interface can have this address with any prefix.
fn unusable(address: IpAddr) -> Option<&'static str> {
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let limited_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() {
        Some("the unspecified address belongs to no host")
    } else if address.is_multicast() {
        Some("a multicast address belongs to no single host")
    } else if address.is_loopback() {
        Some("a loopback address reaches no other host")
    } else if mapped {
        Some("an IPv4-mapped address is never on a link; write it as IPv4")
    } else if limited_broadcast {
        Some("the broadcast address belongs to no host")
    } else {
        None
    }
}

/// Returns the reason why no host in `net` can have this address. IPv4 only, and not in a /31 (RFC
/// 3021) or /32.
fn reserved(net: &IpNet, address: IpAddr) -> Option<&'static str> {
    let IpNet::V4(v4) = net else { return None };
    if v4.prefix_len() >= 31 {
        None
    } else if address == IpAddr::V4(v4.network()) {
        Some("is the address of the network, not of a host")
    } else if address == IpAddr::V4(v4.broadcast()) {
        Some("is the broadcast address of the network, not the address of a host")
    } else {
        None
    }
}

/// Reports whether `address` is an IPv6 link-local address, which is only meaningful on its link.
#[must_use]
pub fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        InterfaceAddress::parse("ip", text).unwrap_err().to_string()
    }

    #[test]
    fn a_parsed_address_keeps_its_host_part() {
        for text in ["10.0.0.2/16", "192.168.1.1/24", "10.0.0.0/31", "2001:db8::2/64"] {
            assert_eq!(InterfaceAddress::parse("ip", text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_error_for_a_prefix_names_the_allowed_range() {
        assert_eq!(
            reason("10.0.0.2/33"),
            "`ip` is \"10.0.0.2/33\": the prefix length must be 1 to 32"
        );
        assert_eq!(
            reason("fe80::1/129"),
            "`ip` is \"fe80::1/129\": the prefix length must be 1 to 128"
        );
        for text in ["10.0.0.2/0", "10.0.0.2/-1", "10.0.0.2/+8", "10.0.0.2/", "10.0.0.2/256"] {
            assert!(reason(text).contains("prefix length must be"), "{text}");
        }
    }

    #[test]
    fn addresses_that_no_host_can_have_are_rejected() {
        for text in [
            "0.0.0.0/8",
            "224.0.0.1/4",
            "127.0.0.1/8",
            "255.255.255.255/32",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "::/64",
            "ff02::1/64",
            "::1/128",
            "::ffff:10.0.0.1/96",
            "10.0.0.2",
            "",
            "/",
            "10.0.0/8",
            " 10.0.0.2/8",
            "example.org/24",
        ] {
            assert!(InterfaceAddress::parse("ip", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_gateway_must_be_another_host_of_the_same_subnet() {
        let v4 = InterfaceAddress::parse("ip", "10.0.2.15/24").unwrap();
        let v6 = InterfaceAddress::parse("ip", "2001:db8::2/64").unwrap();
        assert!(check_gateway("gateway", "10.0.2.2", &v4).is_ok());
        assert!(check_gateway("gateway", "fe80::1", &v6).is_ok());
        for text in ["10.0.3.1", "10.0.2.15", "10.0.2.0", "10.0.2.255", "fe80::1", "10.0.2.2/24"] {
            assert!(check_gateway("gateway", text, &v4).is_err(), "{text}");
        }
        for text in ["2001:db9::1", "10.0.2.2", "ff02::2"] {
            assert!(check_gateway("gateway", text, &v6).is_err(), "{text}");
        }
    }
}
