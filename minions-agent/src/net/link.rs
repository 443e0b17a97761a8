//! Which interface, and that it is up.

use super::rtnl::{Rtnl, StepError, dump};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::LinkUnspec;
use std::fs;
use std::io;

/// The kernel's interface index.
pub(super) type Index = u32;

/// An interface, as the kernel counts and names it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) index: Index,
    name: String,
}

/// The Ethernet interface with the lowest index: a device if there is one, else the container's end
/// of a veth or macvlan. Never one that somebody in the guest made for other ends: a bridge, a
/// dummy, a tunnel.
pub(super) async fn first_ethernet(rtnl: &Rtnl) -> Result<Option<Link>, StepError> {
    let links = dump("listing the interfaces", rtnl.link().get().execute()).await?;
    let lowest = |wanted: fn(&LinkMessage) -> bool| {
        links.iter().filter(|link| wanted(link)).min_by_key(|link| link.header.index)
    };
    let first = lowest(is_device).or_else(|| lowest(is_container_end));
    Ok(first.map(|link| Link { index: link.header.index, name: name(link) }))
}

/// Keeps routers on the link from adding addresses and default routes of their own to the ones that
/// the host gives. What they have added before goes with the other addresses and routes.
///
/// A kernel without IPv6 has no such setting, and needs none.
pub(super) fn ignore_routers(link: &Link) -> io::Result<()> {
    let setting = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", link.name);
    match fs::write(setting, "0") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) async fn set_up(rtnl: &Rtnl, link: &Link) -> Result<(), StepError> {
    let up = LinkUnspec::new_with_index(link.index).up().build();
    rtnl.link().set(up).execute().await.map_err(StepError::at("setting the interface up"))
}

fn name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn is_device(link: &LinkMessage) -> bool {
    is_ethernet(link) && is_free(link) && kind(link).is_none()
}

fn is_container_end(link: &LinkMessage) -> bool {
    is_ethernet(link)
        && is_free(link)
        && matches!(kind(link), Some(InfoKind::Veth | InfoKind::MacVlan))
}

fn is_ethernet(link: &LinkMessage) -> bool {
    link.header.link_layer_type == LinkLayerType::Ether
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
