//! Interfaces: which there are, which one is meant, whether it is up.

use super::rtnl::{Rtnl, StepError, dump};
use minions_proto::message::Selector;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::LinkUnspec;
use std::fs;
use std::io;
use std::path::PathBuf;

/// The kernel's interface index.
pub(super) type Index = u32;

/// An interface, as the kernel counts and names it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) index: Index,
    pub(super) name: String,
    /// Largest packet, in bytes.
    pub(super) mtu: u32,
    /// The driver's word; absent where it takes anything.
    pub(super) max_mtu: Option<u32>,
    /// Administratively.
    pub(super) up: bool,
    /// With carrier.
    pub(super) running: bool,
    /// Whether neighbours are asked for their link-layer addresses (ARP, neighbour discovery).
    pub(super) asks_neighbours: bool,
    mac: Vec<u8>,
    rank: Rank,
}

/// What an interface is to whoever names none: a device if there is one, else the container's end of
/// a veth or macvlan. Never one that somebody in the guest made for other ends: a bridge, a dummy, a
/// tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Device,
    ContainerEnd,
    Other,
}

/// All of them, by index.
pub(super) async fn list(rtnl: &Rtnl) -> Result<Vec<Link>, StepError> {
    let messages = dump("listing the interfaces", rtnl.link().get().execute()).await?;
    let mut links: Vec<_> = messages.iter().map(Link::of).collect();
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// The one that is meant.
pub(super) fn choose<'a>(links: &'a [Link], selector: &Selector) -> Option<&'a Link> {
    match selector {
        Selector::Default => links
            .iter()
            .filter(|link| link.rank != Rank::Other)
            .min_by_key(|link| (link.rank, link.index)),
        Selector::Name(name) => links.iter().find(|link| link.name == *name),
        // A bridge may have the address of one of its ports, which comes first.
        Selector::Mac(mac) => {
            links.iter().filter(|link| link.mac == *mac).min_by_key(|link| (link.rank, link.index))
        }
    }
}

/// Whether routers on the link may add addresses and default routes of their own; `None` on a kernel
/// without IPv6.
pub(super) fn accept_ra(link: &Link) -> io::Result<Option<String>> {
    match fs::read_to_string(accept_ra_file(&link.name)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Likewise.
pub(super) fn set_accept_ra(name: &str, value: &str) -> io::Result<()> {
    match fs::write(accept_ra_file(name), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A name has no slash: the kernel sees to that.
fn accept_ra_file(name: &str) -> PathBuf {
    format!("/proc/sys/net/ipv6/conf/{name}/accept_ra").into()
}

pub(super) async fn set_up(rtnl: &Rtnl, index: Index, up: bool) -> Result<(), StepError> {
    let link = LinkUnspec::new_with_index(index);
    let link = if up { link.up() } else { link.down() };
    let step = if up { "setting the interface up" } else { "setting the interface down" };
    rtnl.link().set(link.build()).execute().await.map_err(StepError::at(step))
}

pub(super) async fn set_mtu(rtnl: &Rtnl, index: Index, mtu: u32) -> Result<(), StepError> {
    let link = LinkUnspec::new_with_index(index).mtu(mtu).build();
    rtnl.link().set(link).execute().await.map_err(StepError::at("setting the MTU"))
}

impl Link {
    /// Not made by software.
    pub(super) fn is_device(&self) -> bool {
        self.rank == Rank::Device
    }

    fn of(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            max_mtu: None,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::LowerUp),
            asks_neighbours: !flags.contains(LinkFlags::Noarp),
            mac: Vec::new(),
            rank: rank(message),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac.clone_from(mac),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::MaxMtu(mtu) => link.max_mtu = Some(*mtu).filter(|mtu| *mtu > 0),
                _ => {}
            }
        }
        link
    }
}

fn rank(link: &LinkMessage) -> Rank {
    if link.header.link_layer_type != LinkLayerType::Ether || !is_free(link) {
        return Rank::Other;
    }
    match kind(link) {
        None => Rank::Device,
        Some(InfoKind::Veth | InfoKind::MacVlan) => Rank::ContainerEnd,
        Some(_) => Rank::Other,
    }
}

/// Not part of a bridge or a bond, which would have the address.
fn is_free(link: &LinkMessage) -> bool {
    !link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Controller(_)))
}

/// What made the interface, if it was software.
fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}
