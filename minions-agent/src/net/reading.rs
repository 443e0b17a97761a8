//! Present state of the network.

use super::dns::{DnsOwner, SystemPaths};
use super::error::NetworkError;
use super::rtnl::Rtnl;
use super::{interfaces, link, route};
use crate::netlink::route::{RouteMessage, TABLE_MAIN, kind, protocol};
use minions_proto::message::{NetworkState, PendingChange, Route};
use rustix::system::uname;

/// Most routes in a reply, a limit of the protocol.
const MAX_ROUTES: usize = 1024;

pub(super) async fn read(
    system: &SystemPaths,
    pending: Option<PendingChange>,
) -> Result<NetworkState, NetworkError> {
    let rtnl = Rtnl::open().map_err(NetworkError::Open)?;
    let links = link::list(&rtnl).await?;
    let name = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let all = route::list(&rtnl).await?;
    let unicast =
        all.iter().filter(|route| route.table == TABLE_MAIN && route.kind == kind::UNICAST);
    let routes = unicast.filter_map(|route| shown(route, route::output_of(route).and_then(name)));
    Ok(NetworkState {
        hostname: uname().nodename().to_string_lossy().into_owned(),
        routes: routes.take(MAX_ROUTES).collect(),
        interfaces: interfaces::list().await?,
        dns: DnsOwner::detect(system).read(system),
        pending,
    })
}

fn shown(route: &RouteMessage, interface: Option<String>) -> Option<Route> {
    Some(Route {
        to: route::destination_of(route)?.to_string(),
        via: route::gateway_of(route).map(|via| via.to_string()),
        interface,
        metric: route::metric_of(route),
        protocol: protocol::name(route.protocol),
        on_link: route.is_on_link(),
    })
}
