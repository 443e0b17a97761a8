//! Neighbours on the link: the kernel sends the queries (ARP, neighbour discovery), and its table has the result.

use super::link::LinkIndex;
use super::rtnl::{Rtnl, StepError, dump};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Interval between two readings of the table.
const LOOK: Duration = Duration::from_millis(20);

/// Makes the kernel query `address`. Returns true once a neighbour answers, false at `deadline` or when the kernel
/// gives up.
pub(super) async fn answers(
    rtnl: &Rtnl,
    link: LinkIndex,
    address: IpAddr,
    deadline: Instant,
) -> Result<bool, StepError> {
    match entry(rtnl, link, address).await? {
        // Set by an administrator.
        Some(entry) if is_fixed(&entry) => return Ok(true),
        // Possibly out of date.
        Some(entry) => forget(rtnl, entry).await,
        None => {}
    }
    ask(rtnl, link, address).await?;
    loop {
        match entry(rtnl, link, address).await?.map(|entry| entry.header.state) {
            Some(NeighbourState::Reachable) => return Ok(true),
            Some(NeighbourState::Failed) => return Ok(false),
            _ if Instant::now() >= deadline => return Ok(false),
            _ => sleep(LOOK).await,
        }
    }
}

/// Removes the entry of `address` from the table, unless it is permanent.
pub(super) async fn forget_address(rtnl: &Rtnl, link: LinkIndex, address: IpAddr) {
    if let Ok(Some(entry)) = entry(rtnl, link, address).await
        && !is_fixed(&entry)
    {
        forget(rtnl, entry).await;
    }
}

async fn ask(rtnl: &Rtnl, link: LinkIndex, address: IpAddr) -> Result<(), StepError> {
    let request = rtnl.neighbours().add(link, address);
    let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
    request.execute().await.map_err(StepError::at("asking for a neighbour"))
}

async fn forget(rtnl: &Rtnl, entry: NeighbourMessage) {
    // Fails if the entry is gone already.
    let _ = rtnl.neighbours().del(entry).execute().await;
}

async fn entry(
    rtnl: &Rtnl,
    link: LinkIndex,
    address: IpAddr,
) -> Result<Option<NeighbourMessage>, StepError> {
    let all = dump("listing the neighbours", rtnl.neighbours().get().execute()).await?;
    Ok(all.into_iter().find(|one| one.header.ifindex == link && is_of(one, address)))
}

fn is_of(entry: &NeighbourMessage, address: IpAddr) -> bool {
    entry.attributes.iter().any(|attribute| match (attribute, address) {
        (NeighbourAttribute::Destination(NeighbourAddress::Inet(one)), IpAddr::V4(v4)) => {
            *one == v4
        }
        (NeighbourAttribute::Destination(NeighbourAddress::Inet6(one)), IpAddr::V6(v6)) => {
            *one == v6
        }
        _ => false,
    })
}

/// Reports whether an administrator has set the entry. `NOARP` does not count: the kernel creates such entries for
/// addresses that it takes for broadcast addresses, which is every address while the guest has no route and no
/// loopback.
fn is_fixed(entry: &NeighbourMessage) -> bool {
    matches!(entry.header.state, NeighbourState::Permanent)
}
