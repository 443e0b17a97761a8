//! Restoring of a snapshot.
//!
//! Each part is compared first and not touched if it is unchanged. The others are restored in the order that the
//! kernel requires: the interface, its addresses, the routes that depend on them.

use super::dns::{DnsOwner, SystemPaths};
use super::error::NetworkError;
use super::network_manager::{self, LinkManagement};
use super::rtnl::{self, Rtnl};
use super::snapshot::{self, LinkState, NetworkSnapshot};
use super::{address, ipv6, link, route};
use crate::boot_clock;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags};
use rustix::system::{sethostname, uname};
use std::io;

/// Kernel clock ticks per second in user space (`USER_HZ`).
const TICKS_A_SECOND: u32 = 100;

/// First error; the remaining parts are restored nevertheless.
struct FirstError(Result<(), NetworkError>);

impl FirstError {
    fn record<T>(&mut self, done: Result<T, impl Into<NetworkError>>) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                if self.0.is_ok() {
                    self.0 = Err(error.into());
                }
                None
            }
        }
    }
}

/// Restores everything. After an error, continues with the other parts and returns the first error.
pub(super) async fn run(
    snapshot: &NetworkSnapshot,
    system: &SystemPaths,
) -> Result<(), NetworkError> {
    let mut first = FirstError(Ok(()));
    // Detected from the present files, not from the saved ones: a change does not affect the owner.
    let owner = DnsOwner::detect(system);
    for file in &snapshot.files {
        let restored = file.restore();
        let path = file.path.clone();
        let restored = restored.map_err(|source| NetworkError::File { path, source });
        let written = first.record(restored).unwrap_or(false);
        if written && file.path == owner.file(system) {
            let system = system.clone();
            let reloaded = tokio::task::spawn_blocking(move || owner.reload(&system)).await;
            let reloaded = reloaded.unwrap_or_else(|error| Err(io::Error::other(error)));
            first.record(reloaded.map_err(NetworkError::Reload));
        }
    }
    if uname().nodename().to_bytes() != snapshot.hostname.as_bytes() {
        let set = sethostname(snapshot.hostname.as_bytes()).map_err(io::Error::from);
        first.record(set.map_err(NetworkError::Hostname));
    }
    let rtnl = Rtnl::open().map_err(NetworkError::Open)?;
    for state in &snapshot.links {
        first.record(link(&rtnl, state).await);
        first.record(addresses(&rtnl, state, snapshot).await);
    }
    first.record(routes(&rtnl, snapshot).await);
    for state in &snapshot.links {
        first.record(management(state).await);
    }
    first.0
}

/// Returns the interface to NetworkManager. Last, because NetworkManager then applies its own configuration.
async fn management(state: &LinkState) -> Result<(), NetworkError> {
    let connection = match &state.network_manager {
        LinkManagement::Managed(connection) => connection.clone(),
        LinkManagement::Unmanaged | LinkManagement::External | LinkManagement::Unknown => {
            return Ok(());
        }
    };
    let link = state.name.clone();
    let given = tokio::task::spawn_blocking(move || {
        network_manager::give_back(&link, connection.as_deref())
    });
    let given = given.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    given.map_err(|source| NetworkError::NetworkManager { link: state.name.clone(), source })
}

async fn link(rtnl: &Rtnl, state: &LinkState) -> Result<(), NetworkError> {
    let links = link::list(rtnl).await?;
    // Unplugged in the meantime.
    let Some(now) = links.iter().find(|link| link.index == state.index) else { return Ok(()) };
    if now.up != state.up {
        link::set_up(rtnl, state.index, state.up).await?;
    }
    if now.mtu != state.mtu {
        link::set_mtu(rtnl, state.index, state.mtu).await?;
    }
    match &state.accept_ra {
        Some(value) => ipv6::set_accept_ra(&now.name, value).map_err(NetworkError::Routers),
        None => Ok(()),
    }
}

/// Restores the addresses. A family whose addresses or their order differ is restored as a whole, because the order
/// determines the primary address.
async fn addresses(
    rtnl: &Rtnl,
    state: &LinkState,
    then: &NetworkSnapshot,
) -> Result<(), NetworkError> {
    let elapsed = elapsed_since(then);
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let of_family = |all: Vec<AddressMessage>| -> Vec<AddressMessage> {
            all.into_iter().filter(|address| address.header.family == family).collect()
        };
        let was = of_family(then.addresses_of(state.index));
        let now = of_family(address::list(rtnl, state.index).await?);
        if same(&was, &now) {
            continue;
        }
        // The kernel's link-local address stays if it was present before: it would return only after a while.
        let stays = |address: &AddressMessage, among: &[AddressMessage]| {
            address::is_link_local_v6(address)
                && among.iter().any(|other| key(other) == key(address))
        };
        for address in now.iter().filter(|address| !stays(address, &was)) {
            address::delete(rtnl, address.clone()).await?;
        }
        let mut missing: Vec<_> = was.iter().filter(|address| !stays(address, &now)).collect();
        if family == AddressFamily::Inet6 {
            // The kernel lists the newest IPv6 address first.
            missing.reverse();
        }
        for address in missing {
            if let Some(message) = to_add(address, elapsed) {
                address::add_as(rtnl, message).await?;
            }
        }
    }
    Ok(())
}

fn same(one: &[AddressMessage], other: &[AddressMessage]) -> bool {
    one.iter().map(key).eq(other.iter().map(key))
}

/// Encodes an address without the properties that change on their own: the remaining lifetime, and the state of
/// duplicate address detection.
fn key(address: &AddressMessage) -> Vec<u8> {
    let mut key = address.clone();
    key.header.flags = Default::default();
    for attribute in &mut key.attributes {
        match attribute {
            AddressAttribute::CacheInfo(life) => {
                life.cstamp = 0;
                life.tstamp = 0;
                for seconds in [&mut life.ifa_preferred, &mut life.ifa_valid] {
                    *seconds = if *seconds == u32::MAX { u32::MAX } else { 0 };
                }
            }
            AddressAttribute::Flags(flags) => {
                *flags -= AddressFlags::Tentative
                    | AddressFlags::Dadfailed
                    | AddressFlags::Optimistic
                    | AddressFlags::Deprecated;
            }
            _ => {}
        }
    }
    rtnl::bytes(&key)
}

/// Returns the message that adds the address again `elapsed` seconds later; `None` if it would have expired by now.
fn to_add(address: &AddressMessage, elapsed: u32) -> Option<AddressMessage> {
    let mut message = address.clone();
    message.header.flags = Default::default();
    for attribute in &mut message.attributes {
        match attribute {
            AddressAttribute::CacheInfo(life) if life.ifa_valid != u32::MAX => {
                life.ifa_valid = life.ifa_valid.checked_sub(elapsed).filter(|left| *left > 0)?;
                if life.ifa_preferred != u32::MAX {
                    life.ifa_preferred = life.ifa_preferred.saturating_sub(elapsed);
                }
            }
            // Keep the settings; the kernel determines the other flags.
            AddressAttribute::Flags(flags) => {
                *flags &= AddressFlags::Nodad
                    | AddressFlags::Homeaddress
                    | AddressFlags::Managetempaddr
                    | AddressFlags::Noprefixroute
                    | AddressFlags::Mcautojoin;
            }
            _ => {}
        }
    }
    Some(message)
}

async fn routes(rtnl: &Rtnl, then: &NetworkSnapshot) -> Result<(), NetworkError> {
    let was: Vec<_> = then.routes.iter().map(route_key).collect();
    for route in route::list(rtnl).await? {
        let extra = snapshot::is_kept(&route.header) && !was.contains(&route_key(&route));
        if extra && !is_link_local(&route) {
            route::delete(rtnl, route).await?;
        }
    }
    let now: Vec<_> = route::list(rtnl).await?.iter().map(route_key).collect();
    let elapsed = elapsed_since(then);
    let missing = then.routes.iter().filter(|route| !now.contains(&route_key(route)));
    let mut missing: Vec<_> = missing.filter(|route| !is_link_local(route)).collect();
    // Routes without a gateway first, because they lead to the next hops of the others; otherwise in the old order.
    missing.sort_by_key(|route| route::gateway_of(route).is_some());
    for route in missing {
        if let Some(message) = route_to_add(route, elapsed) {
            route::add_as(rtnl, message).await?;
        }
    }
    Ok(())
}

/// Reports whether a route is the kernel's link-local route, which comes and goes with the interface.
fn is_link_local(route: &RouteMessage) -> bool {
    route::destination_of(route).is_some_and(|to| minions_proto::cidr::is_link_local_v6(to.addr()))
}

/// Encodes a route without the properties that change on their own: usage and carrier.
fn route_key(route: &RouteMessage) -> Vec<u8> {
    rtnl::bytes(&settings(route))
}

/// Returns the properties of a route that can be set. The expiry is not among them: the kernel reports it in the cache
/// information.
fn settings(route: &RouteMessage) -> RouteMessage {
    let mut message = route.clone();
    message.header.flags &= RouteFlags::Onlink;
    let by_id = message.attributes.iter().any(|one| matches!(one, RouteAttribute::NhId(_)));
    message.attributes.retain(|attribute| match attribute {
        RouteAttribute::CacheInfo(_) => false,
        // The kernel reports the attributes of a next hop object together with its id, but does not accept both.
        RouteAttribute::Gateway(_) | RouteAttribute::Oif(_) | RouteAttribute::MultiPath(_) => {
            !by_id
        }
        _ => true,
    });
    for attribute in &mut message.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            for hop in hops {
                hop.flags &= RouteNextHopFlags::Onlink;
            }
        }
    }
    message
}

/// Returns the message that adds the route again `elapsed` seconds later; `None` if it would have expired by now.
fn route_to_add(route: &RouteMessage, elapsed: u32) -> Option<RouteMessage> {
    let mut message = settings(route);
    let expires = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::CacheInfo(info) if info.expires > 0 => Some(info.expires / TICKS_A_SECOND),
        _ => None,
    });
    if let Some(seconds) = expires {
        let left = seconds.checked_sub(elapsed).filter(|left| *left > 0)?;
        message.attributes.push(RouteAttribute::Expires(left));
    }
    Some(message)
}

/// Returns the seconds since a snapshot was taken.
fn elapsed_since(snapshot: &NetworkSnapshot) -> u32 {
    u32::try_from(boot_clock::now().as_secs().saturating_sub(snapshot.taken)).unwrap_or(0)
}
