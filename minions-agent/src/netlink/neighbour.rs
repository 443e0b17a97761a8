//! Messages about neighbours: `struct ndmsg` of linux/neighbour.h.

use super::{AddressFamily, AttributeList, u16_at, u32_at};
use std::net::IpAddr;

/// Types of the messages.
pub(crate) const NEW: u16 = libc::RTM_NEWNEIGH;
pub(crate) const DELETE: u16 = libc::RTM_DELNEIGH;
pub(crate) const GET: u16 = libc::RTM_GETNEIGH;

/// States of an entry, `NUD_…` of linux/neighbour.h.
pub(crate) mod state {
    pub(crate) const NONE: u16 = 0x00;
    pub(crate) const REACHABLE: u16 = 0x02;
    pub(crate) const FAILED: u16 = 0x20;
    pub(crate) const PERMANENT: u16 = 0x80;
}

/// Flag of a request: the kernel queries the neighbour, `NTF_USE`.
pub(crate) const USE: u8 = 0x01;

/// Attribute with the neighbour's address, `NDA_DST`.
const DESTINATION: u16 = 1;

/// Length of the fixed header.
const HEADER_LEN: usize = 12;

/// Entry of the kernel's table of neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NeighbourMessage {
    pub(crate) family: AddressFamily,
    /// Index of the interface.
    pub(crate) index: u32,
    pub(crate) state: u16,
    pub(crate) flags: u8,
    /// Type of the address, `RTN_…`.
    pub(crate) kind: u8,
    pub(crate) attributes: AttributeList,
}

impl NeighbourMessage {
    /// Returns the request for all entries.
    pub(crate) fn request_all() -> Vec<u8> {
        Self::default().emit()
    }

    /// Returns an entry for an address on the interface with this index.
    pub(crate) fn of(index: u32, address: IpAddr, state: u16, flags: u8) -> Self {
        let family = AddressFamily::of(address);
        let mut message = Self { family, index, state, flags, ..Self::default() };
        message.attributes.push_ip(DESTINATION, address);
        message
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            family: AddressFamily(*bytes.first()?),
            index: u32_at(bytes, 4)?,
            state: u16_at(bytes, 8)?,
            flags: *bytes.get(10)?,
            kind: *bytes.get(11)?,
            attributes: AttributeList::parse(bytes.get(HEADER_LEN..)?)?,
        })
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![self.family.0, 0, 0, 0];
        bytes.extend_from_slice(&self.index.to_ne_bytes());
        bytes.extend_from_slice(&self.state.to_ne_bytes());
        bytes.extend_from_slice(&[self.flags, self.kind]);
        self.attributes.emit(&mut bytes);
        bytes
    }

    /// Returns the neighbour's address; `None` for families other than IPv4 and IPv6.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.attributes.ip(DESTINATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_parsed_as_it_was_emitted() {
        let address = "fe80::1".parse().unwrap();
        let message = NeighbourMessage::of(4, address, state::NONE, USE);
        let bytes = message.emit();
        assert_eq!(bytes.len(), HEADER_LEN + 4 + 16);
        assert_eq!((bytes[0], bytes[10]), (10, USE));
        assert_eq!(NeighbourMessage::parse(&bytes), Some(message.clone()));
        assert_eq!(message.ip(), Some(address));
        assert_eq!(NeighbourMessage::parse(&bytes[..HEADER_LEN - 1]), None);
    }
}
