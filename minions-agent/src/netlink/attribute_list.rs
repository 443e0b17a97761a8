//! Attributes of a netlink message.

use super::u16_at;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of the header of an attribute.
const HEADER_LEN: usize = 4;

/// Alignment of attributes in a message.
const ALIGNMENT: usize = 4;

/// `NLA_F_NESTED` of linux/netlink.h: the value is a list of attributes.
pub(super) const NESTED: u16 = 1 << 15;

/// `NLA_TYPE_MASK` of linux/netlink.h: the type without its two flags.
const TYPE_MASK: u16 = 0x3fff;

/// Attribute with its value as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RawAttribute {
    /// Type, with the flags of the header.
    kind: u16,
    value: Vec<u8>,
}

/// Attributes in the order of the message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AttributeList(Vec<RawAttribute>);

impl AttributeList {
    /// Parses attributes. Returns `None` if a length is impossible.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut list = Vec::new();
        // Fewer bytes than a header are padding, as for the kernel (`nla_ok`).
        while bytes.len() >= HEADER_LEN {
            let len = usize::from(u16_at(bytes, 0)?);
            let value = bytes.get(HEADER_LEN..len)?.to_vec();
            list.push(RawAttribute { kind: u16_at(bytes, 2)?, value });
            // The last attribute may lack its padding.
            bytes = bytes.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        }
        Some(Self(list))
    }

    /// Appends the attributes to a message.
    pub(super) fn emit(&self, message: &mut Vec<u8>) {
        for RawAttribute { kind, value } in &self.0 {
            // The kernel's attributes have this length, and the agent's own ones are shorter.
            let len = u16::try_from(HEADER_LEN + value.len()).unwrap_or(u16::MAX);
            message.extend_from_slice(&len.to_ne_bytes());
            message.extend_from_slice(&kind.to_ne_bytes());
            message.extend_from_slice(value);
            message.resize(message.len().next_multiple_of(ALIGNMENT), 0);
        }
    }

    /// Appends an attribute.
    pub(crate) fn push(&mut self, kind: u16, value: &[u8]) {
        self.0.push(RawAttribute { kind, value: value.to_vec() });
    }

    /// Appends a number.
    pub(crate) fn push_u32(&mut self, kind: u16, number: u32) {
        self.push(kind, &number.to_ne_bytes());
    }

    /// Appends an address.
    pub(crate) fn push_ip(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.push(kind, &v4.octets()),
            IpAddr::V6(v6) => self.push(kind, &v6.octets()),
        }
    }

    /// Returns the value of the first attribute of this type.
    pub(crate) fn get(&self, kind: u16) -> Option<&[u8]> {
        self.all(kind).next()
    }

    /// Returns the values of all attributes of this type.
    pub(crate) fn all(&self, kind: u16) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |one| one.kind & TYPE_MASK == kind).map(|one| &*one.value)
    }

    /// Returns a number.
    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// Returns an address; `None` also for a value that is neither an IPv4 nor an IPv6 address.
    pub(crate) fn ip(&self, kind: u16) -> Option<IpAddr> {
        to_ip(self.get(kind)?)
    }

    /// Returns a text.
    pub(crate) fn text(&self, kind: u16) -> Option<String> {
        self.get(kind).map(to_text)
    }

    /// Returns the attributes that are the value of an attribute.
    pub(crate) fn nested(&self, kind: u16) -> Option<Self> {
        Self::parse(self.get(kind)?)
    }

    /// Changes the values of attributes: `change` gets the type and the value of each.
    pub(crate) fn change(&mut self, mut change: impl FnMut(u16, &mut Vec<u8>)) {
        for one in &mut self.0 {
            change(one.kind & TYPE_MASK, &mut one.value);
        }
    }

    /// Removes the attributes whose type is not kept.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(u16) -> bool) {
        self.0.retain(|one| is_kept(one.kind & TYPE_MASK));
    }

    /// Marks the value of an attribute as a list of attributes. The kernel does so in its own messages for some types
    /// only, but requires it in requests.
    pub(super) fn mark_nested(&mut self, kind: u16) {
        for one in self.0.iter_mut().filter(|one| one.kind & TYPE_MASK == kind) {
            one.kind |= NESTED;
        }
    }
}

/// Converts the value of an attribute to an address.
pub(super) fn to_ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into())).ok()
}

/// Converts the value of an attribute to text, which ends before a NUL byte.
pub(super) fn to_text(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_padded_and_keep_their_flags() {
        let mut list = AttributeList::default();
        list.push(3, b"lo\0");
        list.push_u32(4 | NESTED, 65_536);
        let mut bytes = Vec::new();
        list.emit(&mut bytes);
        let mut expected = Vec::new();
        expected.extend_from_slice(&7_u16.to_ne_bytes());
        expected.extend_from_slice(&3_u16.to_ne_bytes());
        expected.extend_from_slice(b"lo\0\0");
        expected.extend_from_slice(&8_u16.to_ne_bytes());
        expected.extend_from_slice(&0x8004_u16.to_ne_bytes());
        expected.extend_from_slice(&65_536_u32.to_ne_bytes());
        assert_eq!(bytes, expected);
        let parsed = AttributeList::parse(&bytes).unwrap();
        assert_eq!(parsed, list);
        assert_eq!((parsed.text(3).as_deref(), parsed.u32(4)), (Some("lo"), Some(65_536)));
    }

    #[test]
    fn an_attribute_that_is_longer_than_the_message_or_shorter_than_its_header_is_refused() {
        for len in [0_u16, 3, 9] {
            let bytes = [&len.to_ne_bytes()[..], &1_u16.to_ne_bytes(), &[0; 4]].concat();
            assert_eq!(AttributeList::parse(&bytes), None, "{len}");
        }
    }

    #[test]
    fn a_value_of_another_length_is_not_an_address_and_not_a_number() {
        let mut list = AttributeList::default();
        list.push(1, &[1, 2, 3]);
        assert_eq!((list.ip(1), list.u32(1), list.ip(2)), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic_and_a_parsed_list_is_emitted_unchanged(
            bytes in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            if let Some(list) = AttributeList::parse(&bytes) {
                let mut emitted = Vec::new();
                list.emit(&mut emitted);
                prop_assert_eq!(AttributeList::parse(&emitted), Some(list));
            }
        }
    }
}
