//! Who answers on the link: the kernel asks (ARP, neighbour discovery), and we look at its table.

use super::link::Index;
use super::rtnl::{Rtnl, StepError, dump};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often to look at the table.
const LOOK: Duration = Duration::from_millis(20);

/// Has the kernel ask for `address` and waits until somebody answers; whether somebody did before
/// `deadline`, or before the kernel gave up.
pub(super) async fn answers(
    rtnl: &Rtnl,
    link: Index,
    address: IpAddr,
    deadline: Instant,
) -> Result<bool, StepError> {
    match entry(rtnl, link, address).await? {
        // An administrator has set it.
        Some(entry) if is_fixed(&entry) => return Ok(true),
        // It was true at some time.
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

/// Takes the entry out of the table, if it is no fixed one.
pub(super) async fn forget_address(rtnl: &Rtnl, link: Index, address: IpAddr) {
    if let Ok(Some(entry)) = entry(rtnl, link, address).await
        && !is_fixed(&entry)
    {
        forget(rtnl, entry).await;
    }
}

async fn ask(rtnl: &Rtnl, link: Index, address: IpAddr) -> Result<(), StepError> {
    let request = rtnl.neighbours().add(link, address);
    let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
    request.execute().await.map_err(StepError::at("asking for a neighbour"))
}

async fn forget(rtnl: &Rtnl, entry: NeighbourMessage) {
    // Gone already is as good.
    let _ = rtnl.neighbours().del(entry).execute().await;
}

async fn entry(
    rtnl: &Rtnl,
    link: Index,
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

/// `NOARP` is no such entry: the kernel makes one for an address that it takes for a broadcast address, as it does
/// for every address while the guest has no route and no loopback.
fn is_fixed(entry: &NeighbourMessage) -> bool {
    matches!(entry.header.state, NeighbourState::Permanent)
}
