//! Messages about addresses: `struct ifaddrmsg` of linux/if_addr.h.

use super::{AddressFamily, AttributeList, u32_at};
use std::net::IpAddr;

/// Types of the messages.
pub(crate) const NEW: u16 = libc::RTM_NEWADDR;
pub(crate) const DELETE: u16 = libc::RTM_DELADDR;
pub(crate) const GET: u16 = libc::RTM_GETADDR;

/// Types of the attributes, `IFA_…` of linux/if_addr.h.
pub(crate) const ADDRESS: u16 = 1;
pub(crate) const LOCAL: u16 = 2;
pub(crate) const BROADCAST: u16 = 4;
pub(crate) const CACHE_INFO: u16 = 6;
pub(crate) const FLAGS: u16 = 8;
pub(crate) const ROUTE_PRIORITY: u16 = 9;

/// Flags in the attribute `FLAGS`, `IFA_F_…` of linux/if_addr.h.
pub(crate) mod flags {
    pub(crate) const NO_DAD: u32 = 0x02;
    pub(crate) const OPTIMISTIC: u32 = 0x04;
    pub(crate) const DAD_FAILED: u32 = 0x08;
    pub(crate) const HOME_ADDRESS: u32 = 0x10;
    pub(crate) const DEPRECATED: u32 = 0x20;
    pub(crate) const TENTATIVE: u32 = 0x40;
    pub(crate) const MANAGE_TEMPORARY: u32 = 0x100;
    pub(crate) const NO_PREFIX_ROUTE: u32 = 0x200;
    pub(crate) const MC_AUTOJOIN: u32 = 0x400;
}

/// Scope of an address that is valid everywhere, `RT_SCOPE_UNIVERSE`.
pub(crate) const UNIVERSE: u8 = 0;

/// Length of the fixed header.
const HEADER_LEN: usize = 8;

/// Address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AddressMessage {
    pub(crate) family: AddressFamily,
    pub(crate) prefix_len: u8,
    /// The lowest eight flags; the attribute `FLAGS` has all.
    pub(crate) low_flags: u8,
    pub(crate) scope: u8,
    /// Index of the interface.
    pub(crate) index: u32,
    pub(crate) attributes: AttributeList,
}

/// Lifetimes of an address in seconds (`u32::MAX`: forever), and times of its changes: `struct ifa_cacheinfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressLifetime {
    pub(crate) preferred: u32,
    pub(crate) valid: u32,
    pub(crate) created: u32,
    pub(crate) updated: u32,
}

impl AddressLifetime {
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        Some(Self {
            preferred: u32_at(value, 0)?,
            valid: u32_at(value, 4)?,
            created: u32_at(value, 8)?,
            updated: u32_at(value, 12)?,
        })
    }

    pub(crate) fn emit(self) -> Vec<u8> {
        let Self { preferred, valid, created, updated } = self;
        [preferred, valid, created, updated].map(u32::to_ne_bytes).concat()
    }
}

impl AddressMessage {
    /// Returns the request for all addresses.
    pub(crate) fn request_all() -> Vec<u8> {
        Self::default().emit()
    }

    /// Returns an address of the interface with this index. An IPv4 address has the broadcast address of its subnet, if
    /// that has one.
    pub(crate) fn of(index: u32, address: IpAddr, prefix_len: u8) -> Self {
        let family = AddressFamily::of(address);
        let mut message = Self { family, prefix_len, index, ..Self::default() };
        message.attributes.push_ip(ADDRESS, address);
        message.attributes.push_ip(LOCAL, address);
        if let IpAddr::V4(v4) = address
            && prefix_len < 31
        {
            let hosts = u32::MAX >> prefix_len;
            message.attributes.push(BROADCAST, &(v4.to_bits() | hosts).to_be_bytes());
        }
        message
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[family, prefix_len, low_flags, scope] = bytes.first_chunk()?;
        Some(Self {
            family: AddressFamily(family),
            prefix_len,
            low_flags,
            scope,
            index: u32_at(bytes, 4)?,
            attributes: AttributeList::parse(bytes.get(HEADER_LEN..)?)?,
        })
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![self.family.0, self.prefix_len, self.low_flags, self.scope];
        bytes.extend_from_slice(&self.index.to_ne_bytes());
        self.attributes.emit(&mut bytes);
        bytes
    }

    /// Returns the interface's own address. On a point-to-point link, `ADDRESS` is the peer's address and `LOCAL` the
    /// interface's.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.attributes.ip(LOCAL).or_else(|| self.attributes.ip(ADDRESS))
    }

    /// Returns the flags.
    pub(crate) fn flags(&self) -> u32 {
        self.attributes.u32(FLAGS).unwrap_or(0)
    }

    /// Returns the lifetimes.
    pub(crate) fn lifetime(&self) -> Option<AddressLifetime> {
        AddressLifetime::parse(self.attributes.get(CACHE_INFO)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_has_a_broadcast_address_and_is_parsed_as_it_was_emitted() {
        let address = "10.0.0.2".parse().unwrap();
        let message = AddressMessage::of(3, address, 16);
        let bytes = message.emit();
        assert_eq!(bytes[..8], [&[2, 16, 0, 0][..], &3_u32.to_ne_bytes()].concat());
        assert_eq!(AddressMessage::parse(&bytes), Some(message.clone()));
        assert_eq!(message.ip(), Some(address));
        assert_eq!(message.attributes.get(BROADCAST), Some(&[10, 0, 255, 255][..]));
        assert_eq!(AddressMessage::of(3, address, 31).attributes.get(BROADCAST), None);
        let v6 = AddressMessage::of(3, "fd00::2".parse().unwrap(), 64);
        assert_eq!((v6.family, v6.attributes.get(BROADCAST)), (AddressFamily::INET6, None));
    }

    #[test]
    fn the_own_address_of_a_point_to_point_link_is_the_local_one() {
        let mut message = AddressMessage::default();
        message.attributes.push(ADDRESS, &[10, 0, 0, 1]);
        assert_eq!(message.ip(), Some("10.0.0.1".parse().unwrap()));
        message.attributes.push(LOCAL, &[10, 0, 0, 2]);
        assert_eq!(message.ip(), Some("10.0.0.2".parse().unwrap()));
    }
}
