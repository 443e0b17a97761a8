//! Messages about interfaces: `struct ifinfomsg` of linux/rtnetlink.h.

use super::attribute_list::to_text;
use super::{AttributeList, u16_at, u32_at};
use libc::{
    IFLA_ADDRESS, IFLA_ALT_IFNAME, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MAX_MTU, IFLA_MTU, IFLA_PROP_LIST, IFLA_STATS64,
};

/// Types of the messages.
pub(crate) const GET: u16 = libc::RTM_GETLINK;
pub(crate) const SET: u16 = libc::RTM_SETLINK;

/// Length of the fixed header.
const HEADER_LEN: usize = 16;

/// Administratively up.
pub(crate) const UP: u32 = libc::IFF_UP.unsigned_abs();
/// The driver reports a carrier.
pub(crate) const LOWER_UP: u32 = libc::IFF_LOWER_UP.unsigned_abs();
/// Neighbours are not resolved.
pub(crate) const NO_ARP: u32 = libc::IFF_NOARP.unsigned_abs();

/// Interface, or a change of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LinkMessage {
    /// Type of the hardware, `ARPHRD_…`.
    pub(crate) hardware: u16,
    pub(crate) index: u32,
    pub(crate) flags: u32,
    /// Flags that a request sets to those of `flags`.
    pub(crate) changed_flags: u32,
    pub(crate) attributes: AttributeList,
}

/// Counters of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinkCounters {
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_errors: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_dropped: u64,
}

impl LinkMessage {
    /// Returns the request for all interfaces.
    pub(crate) fn request_all() -> Vec<u8> {
        Self::default().emit()
    }

    /// Returns a message about the interface with this index.
    pub(crate) fn of(index: u32) -> Self {
        Self { index, ..Self::default() }
    }

    /// Sets the flag `UP` to this value.
    pub(crate) fn set_up(mut self, up: bool) -> Self {
        self.changed_flags |= UP;
        self.flags = if up { self.flags | UP } else { self.flags & !UP };
        self
    }

    /// Sets the MTU.
    pub(crate) fn set_mtu(mut self, mtu: u32) -> Self {
        self.attributes.push_u32(IFLA_MTU, mtu);
        self
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            hardware: u16_at(bytes, 2)?,
            index: u32_at(bytes, 4)?,
            flags: u32_at(bytes, 8)?,
            changed_flags: u32_at(bytes, 12)?,
            attributes: AttributeList::parse(bytes.get(HEADER_LEN..)?)?,
        })
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        // The address family, which is unspecified, and padding.
        let mut bytes = vec![0, 0];
        bytes.extend_from_slice(&self.hardware.to_ne_bytes());
        bytes.extend_from_slice(&self.index.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&self.changed_flags.to_ne_bytes());
        self.attributes.emit(&mut bytes);
        bytes
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.attributes.text(IFLA_IFNAME)
    }

    /// Returns the other names of the interface.
    pub(crate) fn altnames(&self) -> Vec<String> {
        let properties = self.attributes.nested(IFLA_PROP_LIST).unwrap_or_default();
        properties.all(IFLA_ALT_IFNAME).map(to_text).collect()
    }

    /// Returns the link-layer address.
    pub(crate) fn mac(&self) -> Option<&[u8]> {
        self.attributes.get(IFLA_ADDRESS)
    }

    pub(crate) fn mtu(&self) -> Option<u32> {
        self.attributes.u32(IFLA_MTU)
    }

    /// Returns the largest MTU that the driver accepts; 0 if it sets no limit.
    pub(crate) fn max_mtu(&self) -> Option<u32> {
        self.attributes.u32(IFLA_MAX_MTU)
    }

    /// Returns the index of the bridge, bond or VRF to which the interface belongs.
    pub(crate) fn controller(&self) -> Option<u32> {
        self.attributes.u32(IFLA_MASTER)
    }

    /// Returns the kind of a software interface, for example `veth`; `None` for a device.
    pub(crate) fn kind(&self) -> Option<String> {
        self.attributes.nested(IFLA_LINKINFO)?.text(IFLA_INFO_KIND)
    }

    /// Returns the counters, `struct rtnl_link_stats64`.
    pub(crate) fn counters(&self) -> Option<LinkCounters> {
        let mut numbers = self.attributes.get(IFLA_STATS64)?.chunks_exact(8);
        let mut next = || Some(u64::from_ne_bytes(numbers.next()?.try_into().ok()?));
        Some(LinkCounters {
            rx_packets: next()?,
            tx_packets: next()?,
            rx_bytes: next()?,
            tx_bytes: next()?,
            rx_errors: next()?,
            tx_errors: next()?,
            rx_dropped: next()?,
            tx_dropped: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_parsed_as_it_was_emitted() {
        let message = LinkMessage::of(7).set_up(true).set_mtu(1400);
        let bytes = message.emit();
        assert_eq!(bytes.len(), HEADER_LEN + 8);
        assert_eq!(LinkMessage::parse(&bytes), Some(message.clone()));
        assert_eq!((message.flags, message.changed_flags, message.mtu()), (UP, UP, Some(1400)));
        let down = message.set_up(false);
        assert_eq!((down.flags, down.changed_flags), (0, UP));
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused() {
        let bytes = LinkMessage::of(7).emit();
        assert_eq!(LinkMessage::parse(&bytes[..HEADER_LEN - 1]), None);
    }

    #[test]
    fn nested_values_are_found() {
        let mut message = LinkMessage::of(7);
        let mut nested = |kind, all: &[(u16, &[u8])]| {
            let mut list = AttributeList::default();
            all.iter().for_each(|(kind, value)| list.push(*kind, value));
            let mut bytes = Vec::new();
            list.emit(&mut bytes);
            message.attributes.push(kind, &bytes);
        };
        nested(IFLA_LINKINFO, &[(IFLA_INFO_KIND, b"veth\0")]);
        nested(IFLA_PROP_LIST, &[(IFLA_ALT_IFNAME, b"one\0"), (IFLA_ALT_IFNAME, b"two\0")]);
        message.attributes.push(
            IFLA_STATS64,
            &(1..=25).flat_map(|number: u64| number.to_ne_bytes()).collect::<Vec<_>>(),
        );
        assert_eq!(message.kind().as_deref(), Some("veth"));
        assert_eq!(message.altnames(), ["one", "two"]);
        let counters = message.counters().unwrap();
        assert_eq!((counters.rx_packets, counters.tx_bytes, counters.tx_dropped), (1, 4, 8));
    }
}
