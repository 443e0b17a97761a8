//! Restoring of a snapshot.
//!
//! Each part is compared first and not touched if it is unchanged. The others are restored in the order that the
//! kernel requires: the interface, its addresses, the routes that depend on them.

use super::dns::{DnsOwner, SystemPaths};
use super::error::NetworkError;
use super::network_manager::{self, LinkManagement};
use super::rtnl::Rtnl;
use super::snapshot::{self, LinkState, NetworkSnapshot};
use super::{address, ipv6, link, route};
use crate::boot_clock;
use crate::netlink::AddressFamily;
use crate::netlink::address::{AddressLifetime, AddressMessage, CACHE_INFO, FLAGS, flags};
use crate::netlink::route::{
    self as route_message, EXPIRES, GATEWAY, MULTIPATH, NEXT_HOP_ID, NextHopMessage, OUTPUT,
    RouteMessage,
};
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
            let reloaded = crate::task::spawn_blocking(move || owner.reload(&system)).await;
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
    let given = crate::task::spawn_blocking(move || {
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
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let of_family = |all: Vec<AddressMessage>| -> Vec<AddressMessage> {
            all.into_iter().filter(|address| address.family == family).collect()
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
            address::delete(rtnl, address).await?;
        }
        let mut missing: Vec<_> = was.iter().filter(|address| !stays(address, &now)).collect();
        if family == AddressFamily::INET6 {
            // The kernel lists the newest IPv6 address first.
            missing.reverse();
        }
        for address in missing {
            if let Some(message) = to_add(address, elapsed) {
                address::add_as(rtnl, &message).await?;
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
    key.low_flags = 0;
    change_lifetime(&mut key, |life| AddressLifetime {
        preferred: if life.preferred == u32::MAX { u32::MAX } else { 0 },
        valid: if life.valid == u32::MAX { u32::MAX } else { 0 },
        created: 0,
        updated: 0,
    });
    let own = flags::TENTATIVE | flags::DAD_FAILED | flags::OPTIMISTIC | flags::DEPRECATED;
    keep_flags(&mut key, !own);
    key.emit()
}

/// Returns the message that adds the address again `elapsed` seconds later; `None` if it would have expired by now.
fn to_add(address: &AddressMessage, elapsed: u32) -> Option<AddressMessage> {
    let mut message = address.clone();
    message.low_flags = 0;
    let life = address.lifetime().filter(|life| life.valid != u32::MAX);
    if let Some(life) = life {
        let valid = life.valid.checked_sub(elapsed).filter(|left| *left > 0)?;
        let lasts = life.preferred == u32::MAX;
        let preferred = if lasts { u32::MAX } else { life.preferred.saturating_sub(elapsed) };
        change_lifetime(&mut message, |life| AddressLifetime { valid, preferred, ..life });
    }
    // Keep the settings; the kernel determines the other flags.
    let settings = flags::NO_DAD
        | flags::HOME_ADDRESS
        | flags::MANAGE_TEMPORARY
        | flags::NO_PREFIX_ROUTE
        | flags::MC_AUTOJOIN;
    keep_flags(&mut message, settings);
    Some(message)
}

/// Changes the lifetime of an address, if the message has one.
fn change_lifetime(
    message: &mut AddressMessage,
    change: impl Fn(AddressLifetime) -> AddressLifetime,
) {
    message.attributes.change(|kind, value| {
        if kind == CACHE_INFO
            && let Some(life) = AddressLifetime::parse(value)
        {
            *value = change(life).emit();
        }
    });
}

/// Clears the flags of an address that are not kept.
fn keep_flags(message: &mut AddressMessage, kept: u32) {
    let flags = message.flags() & kept;
    message.attributes.change(|kind, value| {
        if kind == FLAGS {
            *value = flags.to_ne_bytes().to_vec();
        }
    });
}

async fn routes(rtnl: &Rtnl, then: &NetworkSnapshot) -> Result<(), NetworkError> {
    let was: Vec<_> = then.routes.iter().map(route_key).collect();
    for route in route::list(rtnl).await? {
        let extra = snapshot::is_kept(&route) && !was.contains(&route_key(&route));
        if extra && !is_link_local(&route) {
            route::delete(rtnl, &route).await?;
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
            route::add_as(rtnl, &message).await?;
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
    settings(route).emit()
}

/// Returns the properties of a route that can be set. The expiry is not among them: the kernel reports it in the cache
/// information.
fn settings(route: &RouteMessage) -> RouteMessage {
    let mut message = route.clone();
    message.set_on_link(route.is_on_link());
    let by_id = message.attributes.get(NEXT_HOP_ID).is_some();
    message.attributes.retain(|kind| match kind {
        route_message::CACHE_INFO => false,
        // The kernel reports the attributes of a next hop object together with its id, but does not accept both.
        GATEWAY | OUTPUT | MULTIPATH => !by_id,
        _ => true,
    });
    message.attributes.change(|kind, value| {
        if kind == MULTIPATH
            && let Some(mut hops) = NextHopMessage::parse_all(value)
        {
            hops.iter_mut().for_each(NextHopMessage::keep_settings);
            *value = NextHopMessage::emit_all(&hops);
        }
    });
    message
}

/// Returns the message that adds the route again `elapsed` seconds later; `None` if it would have expired by now.
fn route_to_add(route: &RouteMessage, elapsed: u32) -> Option<RouteMessage> {
    let mut message = settings(route);
    if let Some(ticks) = route.expires() {
        let left = (ticks / TICKS_A_SECOND).checked_sub(elapsed).filter(|left| *left > 0)?;
        message.attributes.push_u32(EXPIRES, left);
    }
    Some(message)
}

/// Returns the seconds since a snapshot was taken.
fn elapsed_since(snapshot: &NetworkSnapshot) -> u32 {
    u32::try_from(boot_clock::now().as_secs().saturating_sub(snapshot.taken)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: u32 = u32::MAX;

    fn address(valid: u32, preferred: u32, present: u32) -> AddressMessage {
        let mut message = AddressMessage::of(2, "fd00::2".parse().unwrap(), 64);
        message.low_flags = 0x80;
        let life = AddressLifetime { preferred, valid, created: 7, updated: 8 };
        message.attributes.push(CACHE_INFO, &life.emit());
        message.attributes.push_u32(FLAGS, present);
        message
    }

    #[test]
    fn an_address_is_put_back_with_its_settings_and_the_rest_of_its_lifetime() {
        let before = address(100, 60, flags::NO_DAD | flags::DEPRECATED | 0x80);
        let added = to_add(&before, 70).unwrap();
        let life = added.lifetime().unwrap();
        assert_eq!((life.valid, life.preferred), (30, 0));
        assert_eq!((added.flags(), added.low_flags, added.ip()), (flags::NO_DAD, 0, before.ip()));
        assert_eq!(to_add(&before, 100), None, "it has expired");
        let lasting = to_add(&address(FOREVER, FOREVER, 0), 1_000).unwrap();
        assert_eq!(lasting.lifetime().unwrap().valid, FOREVER);
    }

    #[test]
    fn an_address_is_unchanged_if_only_its_remaining_lifetime_or_its_detection_differ() {
        let before = address(100, 60, flags::TENTATIVE);
        let mut later = address(40, 1, 0);
        later.low_flags = 0;
        assert_eq!(key(&before), key(&later));
        assert_ne!(key(&before), key(&address(FOREVER, FOREVER, 0)));
        assert_ne!(key(&before), key(&address(100, 60, flags::NO_PREFIX_ROUTE)));
    }

    #[test]
    fn a_route_is_put_back_without_its_usage_and_with_the_rest_of_its_lifetime() {
        let mut route = RouteMessage::to("10.0.0.0".parse().unwrap(), 8);
        route.flags = 0x10 | 4;
        route.attributes.push_u32(OUTPUT, 2);
        let usage = [1, 2, 30 * TICKS_A_SECOND, 0, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
        route.attributes.push(route_message::CACHE_INFO, &usage);
        let added = route_to_add(&route, 10).unwrap();
        assert_eq!(added.flags, 4);
        assert_eq!(added.attributes.u32(EXPIRES), Some(20));
        assert_eq!(added.attributes.get(route_message::CACHE_INFO), None);
        assert_eq!(added.attributes.u32(OUTPUT), Some(2));
        assert_eq!(route_to_add(&route, 30), None, "it has expired");
    }

    #[test]
    fn a_route_by_a_next_hop_object_names_only_the_object() {
        let mut route = RouteMessage::to("10.0.0.0".parse().unwrap(), 8);
        route.attributes.push_u32(OUTPUT, 2);
        route.attributes.push_ip(GATEWAY, "10.1.0.1".parse().unwrap());
        route.attributes.push_u32(NEXT_HOP_ID, 5);
        let settings = settings(&route).attributes;
        assert_eq!(
            (settings.u32(NEXT_HOP_ID), settings.get(OUTPUT), settings.get(GATEWAY)),
            (Some(5), None, None)
        );
    }
}
