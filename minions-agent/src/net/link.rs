//! Interfaces: listing, selection, and administrative state.

use super::rtnl::{Rtnl, StepError};
use crate::netlink::RequestFlags;
use crate::netlink::link::{self, LinkMessage};
use minions_proto::message::Selector;

/// The kernel's interface index.
pub(super) type LinkIndex = u32;

/// Network interface with the kernel's index and name.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) index: LinkIndex,
    pub(super) name: String,
    /// Largest packet, in bytes.
    pub(super) mtu: u32,
    /// Largest MTU that the driver accepts; `None` if it sets no limit.
    pub(super) max_mtu: Option<u32>,
    /// Administratively up.
    pub(super) up: bool,
    /// The interface has a carrier.
    pub(super) running: bool,
    /// Neighbours are resolved to link-layer addresses (ARP, neighbour discovery).
    pub(super) asks_neighbours: bool,
    /// Other names of the interface (`ip link property add … altname`).
    altnames: Vec<String>,
    /// Bridge, bond or VRF to which the interface belongs.
    controller: Option<LinkIndex>,
    is_vrf: bool,
    mac: Vec<u8>,
    rank: DefaultRank,
}

/// Suitability as the default interface: a device if there is one, else the container's end of a veth or macvlan.
/// Never an interface that the guest created for other purposes: a bridge, a dummy, a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DefaultRank {
    Device,
    ContainerEnd,
    Other,
}

/// Returns all interfaces in the order of their indices.
pub(super) async fn list(rtnl: &Rtnl) -> Result<Vec<Link>, StepError> {
    let mut links: Vec<_> = messages(rtnl).await?.iter().map(Link::of).collect();
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// Returns the kernel's messages about all interfaces.
pub(super) async fn messages(rtnl: &Rtnl) -> Result<Vec<LinkMessage>, StepError> {
    let (step, all) = ("listing the interfaces", LinkMessage::request_all());
    rtnl.read(step, link::GET, RequestFlags::DUMP, &all, LinkMessage::parse).await
}

/// Returns the interface that `selector` selects.
pub(super) fn choose<'a>(links: &'a [Link], selector: &Selector) -> Option<&'a Link> {
    match selector {
        Selector::Default => default(links),
        Selector::Name(name) => links
            .iter()
            .find(|link| link.name == *name)
            .or_else(|| links.iter().find(|link| link.altnames.contains(name))),
        // A bridge or bond can have the link-layer address of one of its ports. It is preferred: ports have no
        // IP addresses.
        Selector::Mac(mac) => links
            .iter()
            .filter(|link| link.mac == *mac)
            .min_by_key(|link| (controller_of(links, link).is_some(), link.rank, link.index)),
    }
}

/// Returns the first Ethernet device that is not a port. If all devices are ports, returns the bridge or bond of the
/// first one, which connects to the host's network.
fn default(links: &[Link]) -> Option<&Link> {
    let of_rank = |rank| links.iter().filter(move |link| link.rank == rank);
    let is_free = |link: &&Link| controller_of(links, link).is_none();
    of_rank(DefaultRank::Device)
        .find(is_free)
        .or_else(|| of_rank(DefaultRank::Device).find_map(|device| controller_of(links, device)))
        .or_else(|| of_rank(DefaultRank::ContainerEnd).find(is_free))
}

/// Returns the bridge or bond that has the addresses of its port `link`; `None` if `link` is not a port. An interface
/// in a VRF has its own addresses.
pub(super) fn controller_of<'a>(links: &'a [Link], link: &Link) -> Option<&'a Link> {
    let above = |link: &Link| {
        let controller = links.iter().find(|one| Some(one.index) == link.controller);
        controller.filter(|controller| !controller.is_vrf)
    };
    // A bond can be a port of a bridge. The kernel allows no loops, but the list may have changed while it was read.
    let mut highest = above(link)?;
    for _ in 0..links.len() {
        match above(highest) {
            Some(higher) => highest = higher,
            None => break,
        }
    }
    Some(highest)
}

/// Returns a port, and its bridge, that would be the default interface if it were not a port.
pub(super) fn default_port(links: &[Link]) -> Option<(&Link, &Link)> {
    let mut ports = links.iter().filter(|link| link.rank == DefaultRank::ContainerEnd);
    ports.find_map(|link| Some((link, controller_of(links, link)?)))
}

pub(super) async fn set_up(rtnl: &Rtnl, index: LinkIndex, up: bool) -> Result<(), StepError> {
    let step = if up { "setting the interface up" } else { "setting the interface down" };
    set(rtnl, step, &LinkMessage::of(index).set_up(up)).await
}

pub(super) async fn set_mtu(rtnl: &Rtnl, index: LinkIndex, mtu: u32) -> Result<(), StepError> {
    set(rtnl, "setting the MTU", &LinkMessage::of(index).set_mtu(mtu)).await
}

async fn set(rtnl: &Rtnl, step: &'static str, link: &LinkMessage) -> Result<(), StepError> {
    rtnl.change(step, link::SET, RequestFlags::ONE, &link.emit()).await
}

impl Link {
    /// Reports whether the interface is a device, not created by software.
    pub(super) fn is_device(&self) -> bool {
        self.rank == DefaultRank::Device
    }

    fn of(message: &LinkMessage) -> Self {
        let has = |flag| message.flags & flag != 0;
        let kind = message.kind();
        Self {
            index: message.index,
            name: message.name().unwrap_or_default(),
            mtu: message.mtu().unwrap_or(0),
            max_mtu: message.max_mtu().filter(|mtu| *mtu > 0),
            up: has(link::UP),
            running: has(link::LOWER_UP),
            asks_neighbours: !has(link::NO_ARP),
            altnames: message.altnames(),
            controller: message.controller(),
            is_vrf: kind.as_deref() == Some("vrf"),
            mac: message.mac().unwrap_or_default().to_vec(),
            rank: rank(message.hardware, kind.as_deref()),
        }
    }
}

/// Returns the rank of an interface of this hardware and, if software has created it, of this kind.
fn rank(hardware: u16, kind: Option<&str>) -> DefaultRank {
    match kind {
        _ if hardware != libc::ARPHRD_ETHER => DefaultRank::Other,
        None => DefaultRank::Device,
        Some("veth" | "macvlan") => DefaultRank::ContainerEnd,
        Some(_) => DefaultRank::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(
        index: LinkIndex,
        name: &str,
        rank: DefaultRank,
        controller: Option<LinkIndex>,
    ) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mtu: 1500,
            max_mtu: None,
            up: true,
            running: true,
            asks_neighbours: true,
            altnames: vec![format!("alt-{name}")],
            controller,
            is_vrf: name.starts_with("vrf"),
            mac: vec![0x52, 0x54, 0, 0, 0, 1],
            rank,
        }
    }

    fn chosen<'a>(links: &'a [Link], selector: &Selector) -> Option<&'a str> {
        choose(links, selector).map(|link| link.name.as_str())
    }

    #[test]
    fn the_default_interface_is_never_a_port() {
        let eth0 = |controller| link(2, "eth0", DefaultRank::Device, controller);
        let (br0, bond0) = (
            link(9, "br0", DefaultRank::Other, None),
            link(8, "bond0", DefaultRank::Other, Some(9)),
        );
        let eth1 = link(3, "eth1", DefaultRank::Device, None);
        let veth = |controller| link(1, "veth7", DefaultRank::ContainerEnd, controller);
        for (links, expected) in [
            (vec![veth(None), eth0(Some(9)), eth1, br0.clone()], Some("eth1")),
            (vec![veth(None), eth0(Some(9)), br0.clone()], Some("br0")),
            (vec![eth0(Some(8)), bond0, br0.clone()], Some("br0")),
            (vec![eth0(Some(7)), link(7, "vrf0", DefaultRank::Other, None)], Some("eth0")),
            // The far end of a container's veth does not lead to the host's network.
            (vec![veth(Some(9)), br0.clone()], None),
            (vec![br0], None),
        ] {
            assert_eq!(chosen(&links, &Selector::Default), expected, "{links:#?}");
        }
    }

    #[test]
    fn a_link_layer_address_that_ports_share_belongs_to_their_bridge() {
        let links = [
            link(2, "eth0", DefaultRank::Device, Some(9)),
            link(9, "br0", DefaultRank::Other, None),
        ];
        assert_eq!(chosen(&links, &Selector::Mac([0x52, 0x54, 0, 0, 0, 1])), Some("br0"));
        assert_eq!(chosen(&links, &Selector::Name("alt-eth0".into())), Some("eth0"));
        assert_eq!(chosen(&links, &Selector::Name("alt-eth1".into())), None);
    }
}
