//! List of all interfaces with their addresses and counters.

use super::address::ip_of;
use super::error::NetworkError;
use super::rtnl::{Rtnl, dump};
use minions_proto::message::Interface;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, Stats64};

/// Limits of the protocol: interfaces, and addresses of each.
const MAX_LISTED: usize = 1024;
const MAX_ADDRESSES: usize = 256;

/// Returns all interfaces, including the loopback, in the order of their indices.
pub(crate) async fn list() -> Result<Vec<Interface>, NetworkError> {
    let rtnl = Rtnl::open().map_err(NetworkError::Open)?;
    let mut links = dump("listing the interfaces", rtnl.link().get().execute()).await?;
    let addresses = dump("listing the addresses", rtnl.address().get().execute()).await?;
    links.sort_by_key(|link| link.header.index);
    Ok(links.iter().take(MAX_LISTED).map(|link| interface(link, &addresses)).collect())
}

fn interface(link: &LinkMessage, addresses: &[AddressMessage]) -> Interface {
    let mut shown = Interface {
        name: String::new(),
        mac: None,
        up: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: 0,
        addresses: addresses
            .iter()
            .filter(|address| address.header.index == link.header.index)
            .filter_map(|address| {
                Some(format!("{}/{}", ip_of(address)?, address.header.prefix_len))
            })
            .take(MAX_ADDRESSES)
            .collect(),
        rx_bytes: 0,
        rx_packets: 0,
        rx_errors: 0,
        rx_dropped: 0,
        tx_bytes: 0,
        tx_packets: 0,
        tx_errors: 0,
        tx_dropped: 0,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => shown.name.clone_from(name),
            LinkAttribute::Address(bytes) => shown.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => shown.mtu = *mtu,
            LinkAttribute::Stats64(stats) => count(&mut shown, stats),
            _ => {}
        }
    }
    shown
}

fn count(shown: &mut Interface, stats: &Stats64) {
    shown.rx_bytes = stats.rx_bytes;
    shown.rx_packets = stats.rx_packets;
    shown.rx_errors = stats.rx_errors;
    shown.rx_dropped = stats.rx_dropped;
    shown.tx_bytes = stats.tx_bytes;
    shown.tx_packets = stats.tx_packets;
    shown.tx_errors = stats.tx_errors;
    shown.tx_dropped = stats.tx_dropped;
}

/// Formats a link-layer address as `52:54:00:12:34:56`; `None` if it is all zero, as that of the loopback.
fn mac(bytes: &[u8]) -> Option<String> {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.iter().any(|byte| *byte != 0).then(|| digits.join(":"))
}
