//! Messages about routes: `struct rtmsg` of linux/rtnetlink.h.

use super::attribute_list::to_ip;
use super::{AddressFamily, AttributeList, u16_at, u32_at};
use std::net::IpAddr;

/// Types of the messages.
pub(crate) const NEW: u16 = libc::RTM_NEWROUTE;
pub(crate) const DELETE: u16 = libc::RTM_DELROUTE;
pub(crate) const GET: u16 = libc::RTM_GETROUTE;

/// Types of the attributes, `RTA_…` of linux/rtnetlink.h.
pub(crate) const DESTINATION: u16 = 1;
pub(crate) const OUTPUT: u16 = 4;
pub(crate) const GATEWAY: u16 = 5;
pub(crate) const PRIORITY: u16 = 6;
pub(crate) const MULTIPATH: u16 = 9;
pub(crate) const CACHE_INFO: u16 = 12;
const VIA: u16 = 18;
const ENCAPSULATION: u16 = 22;
pub(crate) const EXPIRES: u16 = 23;
pub(crate) const NEXT_HOP_ID: u16 = 30;

/// Tables, `RT_TABLE_…` of linux/rtnetlink.h.
pub(crate) const TABLE_MAIN: u8 = 254;
/// Table that the kernel maintains itself.
pub(crate) const TABLE_LOCAL: u8 = 255;

/// Scope of routes to the link itself, `RT_SCOPE_LINK`.
pub(crate) const SCOPE_LINK: u8 = 253;

/// Flag of a route and of a next hop: the gateway is on the link, `RTNH_F_ONLINK`.
const ON_LINK: u8 = 4;

/// Length of the fixed header.
const HEADER_LEN: usize = 12;

/// Length of the header of a next hop, `struct rtnexthop`.
const HOP_HEADER_LEN: usize = 8;

/// Alignment of next hops.
const HOP_ALIGNMENT: usize = 4;

/// Kinds of routes, `RTN_…` of linux/rtnetlink.h.
pub(crate) mod kind {
    pub(crate) const UNICAST: u8 = 1;
    pub(crate) const BLACKHOLE: u8 = 6;
    pub(crate) const UNREACHABLE: u8 = 7;
    pub(crate) const PROHIBIT: u8 = 8;
    pub(crate) const THROW: u8 = 9;
}

/// Origin of a route, `RTPROT_…` of linux/rtnetlink.h.
pub(crate) mod protocol {
    pub(crate) const KERNEL: u8 = 2;
    pub(crate) const STATIC: u8 = 4;

    /// Names by number.
    const NAMES: [(u8, &str); 22] = [
        (0, "unspec"),
        (1, "icmp_redirect"),
        (KERNEL, "kernel"),
        (3, "boot"),
        (STATIC, "static"),
        (8, "gated"),
        (9, "ra"),
        (10, "merit_mrt"),
        (11, "zebra"),
        (12, "bird"),
        (13, "decnet_routing_daemon"),
        (14, "xorp"),
        (15, "netsukuku"),
        (16, "Dhcp"),
        (17, "multicast_daemon"),
        (18, "keepalived_daemon"),
        (42, "babel"),
        (186, "bgp"),
        (187, "isis"),
        (188, "ospf"),
        (189, "rip"),
        (192, "eigrp"),
    ];

    /// Returns the name of an origin.
    pub(crate) fn name(protocol: u8) -> String {
        let known = NAMES.iter().find(|(number, _)| *number == protocol);
        known.map_or_else(|| format!("other({protocol})"), |(_, name)| (*name).to_owned())
    }
}

/// Route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RouteMessage {
    pub(crate) family: AddressFamily,
    pub(crate) destination_prefix_len: u8,
    pub(crate) source_prefix_len: u8,
    pub(crate) tos: u8,
    pub(crate) table: u8,
    pub(crate) protocol: u8,
    pub(crate) scope: u8,
    pub(crate) kind: u8,
    pub(crate) flags: u32,
    pub(crate) attributes: AttributeList,
}

/// Next hop of a route with several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextHopMessage {
    flags: u8,
    weight: u8,
    /// Index of the interface.
    pub(crate) index: u32,
    attributes: AttributeList,
}

impl RouteMessage {
    /// Returns a static unicast route of the main table, or the request for all routes of its family.
    pub(crate) fn of_family(family: AddressFamily) -> Self {
        Self {
            family,
            table: TABLE_MAIN,
            protocol: protocol::STATIC,
            kind: kind::UNICAST,
            ..Self::default()
        }
    }

    /// Returns a static route to a network, or the request for the route to an address.
    pub(crate) fn to(address: IpAddr, prefix_len: u8) -> Self {
        let mut message = Self::of_family(AddressFamily::of(address));
        message.destination_prefix_len = prefix_len;
        message.attributes.push_ip(DESTINATION, address);
        message
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[family, to, from, tos, table, protocol, scope, kind] = bytes.first_chunk()?;
        let mut message = Self {
            family: AddressFamily(family),
            destination_prefix_len: to,
            source_prefix_len: from,
            tos,
            table,
            protocol,
            scope,
            kind,
            flags: u32_at(bytes, 8)?,
            attributes: AttributeList::parse(bytes.get(HEADER_LEN..)?)?,
        };
        message.attributes.mark_nested(ENCAPSULATION);
        Some(message)
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![
            self.family.0,
            self.destination_prefix_len,
            self.source_prefix_len,
            self.tos,
            self.table,
            self.protocol,
            self.scope,
            self.kind,
        ];
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        self.attributes.emit(&mut bytes);
        bytes
    }

    /// Reports whether the gateway counts as being on the link.
    pub(crate) fn is_on_link(&self) -> bool {
        self.flags & u32::from(ON_LINK) != 0
    }

    /// Sets the flags to those that a request can set.
    pub(crate) fn set_on_link(&mut self, on_link: bool) {
        self.flags = if on_link { ON_LINK.into() } else { 0 };
    }

    /// Returns the gateway. An IPv4 route can have an IPv6 gateway (`RTA_VIA`).
    pub(crate) fn router(&self) -> Option<IpAddr> {
        router_in(&self.attributes)
    }

    /// Returns the next hops of a route with several.
    pub(crate) fn hops(&self) -> Vec<NextHopMessage> {
        self.attributes.get(MULTIPATH).and_then(NextHopMessage::parse_all).unwrap_or_default()
    }

    /// Returns the time until the route expires, in clock ticks; `None` if it does not expire.
    pub(crate) fn expires(&self) -> Option<u32> {
        // `struct rta_cacheinfo`: the third number.
        u32_at(self.attributes.get(CACHE_INFO)?, 8).filter(|ticks| *ticks > 0)
    }
}

impl NextHopMessage {
    /// Parses the value of `MULTIPATH`. Returns `None` if a length is impossible.
    pub(crate) fn parse_all(mut bytes: &[u8]) -> Option<Vec<Self>> {
        let mut hops = Vec::new();
        while !bytes.is_empty() {
            let len = usize::from(u16_at(bytes, 0)?);
            let mut attributes = AttributeList::parse(bytes.get(HOP_HEADER_LEN..len)?)?;
            attributes.mark_nested(ENCAPSULATION);
            hops.push(Self {
                flags: *bytes.get(2)?,
                weight: *bytes.get(3)?,
                index: u32_at(bytes, 4)?,
                attributes,
            });
            bytes = bytes.get(len.next_multiple_of(HOP_ALIGNMENT)..).unwrap_or_default();
        }
        Some(hops)
    }

    /// Encodes the value of `MULTIPATH`.
    pub(crate) fn emit_all(hops: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for hop in hops {
            let mut attributes = Vec::new();
            hop.attributes.emit(&mut attributes);
            // The next hops came from one attribute of the kernel, so each fits its length.
            let len = u16::try_from(HOP_HEADER_LEN + attributes.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&len.to_ne_bytes());
            bytes.extend_from_slice(&[hop.flags, hop.weight]);
            bytes.extend_from_slice(&hop.index.to_ne_bytes());
            bytes.extend_from_slice(&attributes);
        }
        bytes
    }

    /// Reports whether the gateway counts as being on the link.
    pub(crate) fn is_on_link(&self) -> bool {
        self.flags & ON_LINK != 0
    }

    /// Removes the flags that the kernel determines.
    pub(crate) fn keep_settings(&mut self) {
        self.flags &= ON_LINK;
    }

    /// Returns the gateway.
    pub(crate) fn router(&self) -> Option<IpAddr> {
        router_in(&self.attributes)
    }
}

fn router_in(attributes: &AttributeList) -> Option<IpAddr> {
    // `struct rtvia`: the address family in two bytes, then the address.
    let via = || to_ip(attributes.get(VIA)?.get(2..)?);
    attributes.ip(GATEWAY).or_else(via)
}

#[cfg(test)]
mod tests {
    use super::super::attribute_list::NESTED;
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_message_is_parsed_as_it_was_emitted() {
        let mut message = RouteMessage::to(ip("10.1.0.0"), 16);
        message.attributes.push_ip(GATEWAY, ip("10.0.0.1"));
        message.attributes.push_u32(OUTPUT, 2);
        message.set_on_link(true);
        let bytes = message.emit();
        assert_eq!(bytes[..8], [2, 16, 0, 0, 254, 4, 0, 1]);
        assert_eq!(RouteMessage::parse(&bytes), Some(message.clone()));
        assert!(message.is_on_link() && message.router() == Some(ip("10.0.0.1")));
        assert_eq!(RouteMessage::parse(&bytes[..HEADER_LEN - 1]), None);
    }

    #[test]
    fn several_next_hops_are_parsed_and_emitted() {
        let hop = |index, router| {
            let mut attributes = AttributeList::default();
            attributes.push_ip(GATEWAY, ip(router));
            NextHopMessage { flags: ON_LINK | 1, weight: 3, index, attributes }
        };
        let hops = [hop(2, "10.0.0.1"), hop(3, "fd00::1")];
        let bytes = NextHopMessage::emit_all(&hops);
        assert_eq!(NextHopMessage::parse_all(&bytes).as_deref(), Some(&hops[..]));
        let mut settings = hops[1].clone();
        settings.keep_settings();
        assert!(settings.is_on_link() && settings.flags == ON_LINK);
        for len in [0, 7, bytes.len() - 1] {
            assert_eq!(NextHopMessage::parse_all(&bytes[..len]).is_some(), len == 0, "{len}");
        }
    }

    #[test]
    fn a_router_of_the_other_family_is_found() {
        let mut message = RouteMessage::of_family(AddressFamily::INET);
        let via =
            [&10_u16.to_ne_bytes()[..], &"fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets()];
        message.attributes.push(VIA, &via.concat());
        assert_eq!(message.router(), Some(ip("fe80::1")));
    }

    #[test]
    fn an_encapsulation_is_marked_as_nested_because_the_kernel_requires_it_in_requests() {
        let mut message = RouteMessage::of_family(AddressFamily::INET6);
        message.attributes.push(ENCAPSULATION, &[0; 4]);
        let parsed = RouteMessage::parse(&message.emit()).unwrap();
        let mut expected = AttributeList::default();
        expected.push(ENCAPSULATION | NESTED, &[0; 4]);
        assert_eq!(parsed.attributes, expected);
    }

    #[test]
    fn origins_have_names() {
        assert_eq!(protocol::name(4), "static");
        assert_eq!(protocol::name(77), "other(77)");
    }
}
