//! List of all interfaces with their addresses and counters.

use super::error::NetworkError;
use super::rtnl::Rtnl;
use super::{address, link};
use crate::netlink::address::AddressMessage;
use crate::netlink::link::{LOWER_UP, LinkMessage, UP};
use minions_proto::message::Interface;

/// Limits of the protocol: interfaces, and addresses of each.
const MAX_LISTED: usize = 1024;
const MAX_ADDRESSES: usize = 256;

/// Returns all interfaces, including the loopback, in the order of their indices.
pub(crate) async fn list() -> Result<Vec<Interface>, NetworkError> {
    let rtnl = Rtnl::open().map_err(NetworkError::Open)?;
    let mut links = link::messages(&rtnl).await?;
    let addresses = address::list_all(&rtnl).await?;
    links.sort_by_key(|link| link.index);
    Ok(links.iter().take(MAX_LISTED).map(|link| interface(link, &addresses)).collect())
}

fn interface(link: &LinkMessage, addresses: &[AddressMessage]) -> Interface {
    let own = addresses.iter().filter(|address| address.index == link.index);
    let counters = link.counters().unwrap_or_default();
    Interface {
        name: link.name().unwrap_or_default(),
        mac: link.mac().and_then(mac),
        up: link.flags & (UP | LOWER_UP) == UP | LOWER_UP,
        mtu: link.mtu().unwrap_or(0),
        addresses: own.filter_map(address::in_words).take(MAX_ADDRESSES).collect(),
        rx_bytes: counters.rx_bytes,
        rx_packets: counters.rx_packets,
        rx_errors: counters.rx_errors,
        rx_dropped: counters.rx_dropped,
        tx_bytes: counters.tx_bytes,
        tx_packets: counters.tx_packets,
        tx_errors: counters.tx_errors,
        tx_dropped: counters.tx_dropped,
    }
}

/// Formats a link-layer address as `52:54:00:12:34:56`; `None` if it is all zero, as that of the loopback.
fn mac(bytes: &[u8]) -> Option<String> {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.iter().any(|byte| *byte != 0).then(|| digits.join(":"))
}
