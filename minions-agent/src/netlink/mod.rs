//! Routing netlink (rtnetlink(7)): the messages about interfaces, addresses, routes and neighbours.
//!
//! ```text
//!  message:   u32 length · u16 type · u16 flags · u32 sequence · u32 port · fixed header · attributes
//!  attribute: u16 length · u16 type · value · padding to 4 bytes
//! ```
//!
//! All numbers have the byte order of the machine. An attribute is kept as the bytes that the kernel sent, so a message
//! that is sent back contains also the attributes that this module does not know. Crates that decode all messages and
//! attributes of the protocol into types would be a fifth of the agent's file.
//!
//! # Layout
//!
//! * `attribute_list`: attributes of a message.
//! * `link`, `address`, `route`, `neighbour`: one message each.
//! * `socket`: requests and their replies.

pub(crate) mod address;
mod attribute_list;
pub(crate) mod link;
pub(crate) mod neighbour;
pub(crate) mod route;
mod socket;

pub(crate) use attribute_list::AttributeList;
pub(crate) use socket::{NetlinkSocket, RequestFlags};

/// Address family of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AddressFamily(u8);

impl AddressFamily {
    /// `AF_INET`.
    pub(crate) const INET: Self = Self(2);
    /// `AF_INET6`.
    pub(crate) const INET6: Self = Self(10);

    /// Returns the family of an address.
    pub(crate) fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::INET } else { Self::INET6 }
    }
}

/// Reads a number of four bytes at an offset.
fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Reads a number of two bytes at an offset.
fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}
