//! Addresses of name servers.

use crate::cidr::is_link_local_v6;
use crate::error::Invalid;
use crate::names::check_interface_name;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Address of a name server: `1.1.1.1`, `2001:db8::53`, `fe80::1%eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// The address without its zone.
    pub address: IpAddr,
    /// Interface whose link an IPv6 link-local address belongs to. Other addresses have none.
    pub zone: Option<String>,
}

impl ServerAddress {
    /// Parses an address, with or without a zone. A loopback address is allowed: local resolvers are common.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `field`: not an address, unspecified or multicast, or with a zone that is
    /// not an interface name or does not belong to a link-local address.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let invalid = |reason: &str| Invalid::value(field, text, reason);
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid("not an IP address"))?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(invalid("must be the address of a host"));
        }
        if zone.is_some() && !is_link_local_v6(address) {
            return Err(invalid("only an IPv6 link-local address has a zone; remove the % part"));
        }
        let checked = zone.map(|zone| check_interface_name(field, zone)).transpose();
        let zone = checked.map_err(|_| {
            invalid("the zone must be the name of an interface, as in fe80::1%eth0")
        })?;
        Ok(Self { address, zone })
    }

    /// Reports whether the address is only meaningful with a zone, and has none.
    #[must_use]
    pub fn needs_zone(&self) -> bool {
        self.zone.is_none() && is_link_local_v6(self.address)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        match &self.zone {
            Some(zone) => write!(f, "%{zone}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse("server", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_displayed_as_it_was_parsed() {
        for text in ["127.0.0.53", "2001:db8::53", "fe80::1", "fe80::1%eth0", "fe80::1%br-lan.7"] {
            assert_eq!(ServerAddress::parse("dns[0]", text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn only_a_link_local_address_without_a_zone_needs_one() {
        let needs_zone = |text: &str| text.parse::<ServerAddress>().unwrap().needs_zone();
        assert!(needs_zone("fe80::1"));
        assert!(
            !needs_zone("fe80::1%eth0") && !needs_zone("2001:db8::1") && !needs_zone("1.1.1.1")
        );
    }

    #[test]
    fn invalid_servers_are_rejected_with_their_field() {
        for text in [
            "0.0.0.0",
            "ff02::fb",
            "one.one.one.one",
            "1.1.1.1%eth0",
            "2001:db8::53%eth0",
            "fe80::1%",
            "fe80::1%eth0/64",
            "fe80::1%eth0 x",
            "fe80::1%eth0%eth1:",
            &format!("fe80::1%{}", "a".repeat(128)),
            "fe80::1%eth0\noptions x",
        ] {
            let invalid = ServerAddress::parse("dns[3]", text).unwrap_err();
            assert_eq!(invalid.field, "dns[3]", "{text}");
        }
    }
}
