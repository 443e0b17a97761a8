//! The network as it is before a change, and back to it.
//!
//! Taken of everything that a change may touch, also by the way: the kernel takes routes along with an
//! address, in whatever table they are.

use super::desired::{Desired, DesiredLink};
use super::dns::{Owner, Places};
use super::link::Index;
use super::network_manager::{self, Management};
use super::restore;
use super::rtnl::Rtnl;
use super::saved_file::SavedFile;
use super::{NetworkError, address, ipv6, networkd, route};
use minions_proto::message::Dns;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use rustix::system::uname;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;

/// `RT_TABLE_LOCAL`: the kernel's own book.
const TABLE_LOCAL: u8 = 255;

/// As it was.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) links: Vec<LinkState>,
    /// Of these links, in the kernel's order.
    pub(super) addresses: Vec<AddressMessage>,
    /// Of all links, in the kernel's order; the local table aside.
    pub(super) routes: Vec<RouteMessage>,
    pub(super) files: Vec<SavedFile>,
    pub(super) hostname: String,
    /// Only to compare with: the files are what is put back.
    pub(super) dns: Dns,
    /// Seconds on the boot clock, for lifetimes that have run on since.
    pub(super) taken: i64,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinkState {
    pub(super) index: Index,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) mtu: u32,
    /// `None`: it is not touched. There is no IPv6, or none is asked for and the setting is read-only.
    pub(super) accept_ra: Option<String>,
    /// Of an interface whose addresses the change sets.
    #[serde(default)]
    pub(super) network_manager: Management,
}

impl Snapshot {
    /// Reads the links of `desired`, all routes, the hostname, and the files that are written for `owner` and
    /// these links.
    pub(super) async fn take(
        rtnl: &Rtnl,
        desired: &Desired,
        owner: Owner,
        places: &Places,
    ) -> Result<Self, NetworkError> {
        let mut addresses = Vec::new();
        let mut states = Vec::new();
        let mut paths = vec![owner.file(places)];
        let mut management = managements(desired, places).await;
        for one in &desired.links {
            let link = &one.link;
            addresses.extend(address::list(rtnl, link.index).await?);
            states.push(LinkState {
                index: link.index,
                name: link.name.clone(),
                up: link.up,
                mtu: link.mtu,
                accept_ra: accept_ra(one).map_err(NetworkError::Routers)?,
                network_manager: management.remove(&link.index).unwrap_or_default(),
            });
            paths.push(networkd::file(&places.run, &link.name));
            paths.push(network_manager::file(&places.run, &link.name));
        }
        let mut routes = route::list(rtnl).await?;
        routes.retain(|route| is_kept(&route.header));
        let files = paths.iter().map(|path| {
            SavedFile::read(path)
                .map_err(|source| NetworkError::File { path: path.clone(), source })
        });
        Ok(Self {
            links: states,
            addresses,
            routes,
            files: files.collect::<Result<_, _>>()?,
            hostname: uname().nodename().to_string_lossy().into_owned(),
            dns: owner.read(places),
            taken: now(),
        })
    }

    pub(super) fn accept_ra(&self, link: Index) -> Option<&str> {
        self.state_of(link)?.accept_ra.as_deref()
    }

    pub(super) fn state_of(&self, link: Index) -> Option<&LinkState> {
        self.links.iter().find(|state| state.index == link)
    }

    pub(super) fn addresses_of(&self, link: Index) -> Vec<AddressMessage> {
        let of = self.addresses.iter().filter(|address| address.header.index == link);
        of.cloned().collect()
    }

    /// Puts everything back. Goes on after an error, to put back what can be; the first one is told.
    pub(super) async fn restore(&self, places: &Places) -> Result<(), NetworkError> {
        restore::run(self, places).await
    }
}

fn accept_ra(one: &DesiredLink) -> io::Result<Option<String>> {
    let name = &one.link.name;
    if one.has_ipv6() || ipv6::is_writable(name) { ipv6::accept_ra(name) } else { Ok(None) }
}

/// What NetworkManager does with the interfaces whose addresses are set.
async fn managements(desired: &Desired, places: &Places) -> HashMap<Index, Management> {
    let set = desired.links.iter().filter(|one| one.addresses.is_some());
    let links: Vec<_> = set.map(|one| (one.link.index, one.link.name.clone())).collect();
    let places = places.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let all = links.iter();
        all.map(|(index, name)| (*index, network_manager::management(&places, name))).collect()
    });
    asked.await.unwrap_or_default()
}

/// Whether a route is somebody's, and not what the kernel keeps for itself.
pub(super) fn is_kept(header: &RouteHeader) -> bool {
    header.table != TABLE_LOCAL
}

/// Seconds on the boot clock.
pub(super) fn now() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec
}
