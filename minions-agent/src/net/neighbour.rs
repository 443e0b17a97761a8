//! Neighbours on the link: the kernel sends the queries (ARP, neighbour discovery), and its table has the result.

use super::link::LinkIndex;
use super::rtnl::{Rtnl, StepError};
use crate::netlink::RequestFlags;
use crate::netlink::neighbour::{self, NeighbourMessage, state};
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
        Some(entry) => forget(rtnl, &entry).await,
        None => {}
    }
    ask(rtnl, link, address).await?;
    loop {
        match entry(rtnl, link, address).await?.map(|entry| entry.state) {
            Some(state::REACHABLE) => return Ok(true),
            Some(state::FAILED) => return Ok(false),
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
        forget(rtnl, &entry).await;
    }
}

async fn ask(rtnl: &Rtnl, link: LinkIndex, address: IpAddr) -> Result<(), StepError> {
    let question = NeighbourMessage::of(link, address, state::NONE, neighbour::USE).emit();
    rtnl.change("asking for a neighbour", neighbour::NEW, RequestFlags::REPLACE, &question).await
}

async fn forget(rtnl: &Rtnl, entry: &NeighbourMessage) {
    let step = "removing a neighbour";
    // Fails if the entry is gone already.
    let _ = rtnl.change(step, neighbour::DELETE, RequestFlags::ONE, &entry.emit()).await;
}

async fn entry(
    rtnl: &Rtnl,
    link: LinkIndex,
    address: IpAddr,
) -> Result<Option<NeighbourMessage>, StepError> {
    let (step, all) = ("listing the neighbours", NeighbourMessage::request_all());
    let read = rtnl.read(step, neighbour::GET, RequestFlags::DUMP, &all, NeighbourMessage::parse);
    let is_wanted = |one: &NeighbourMessage| one.index == link && one.ip() == Some(address);
    Ok(read.await?.into_iter().find(is_wanted))
}

/// Reports whether an administrator has set the entry. `NOARP` does not count: the kernel creates such entries for
/// addresses that it takes for broadcast addresses, which is every address while the guest has no route and no
/// loopback.
fn is_fixed(entry: &NeighbourMessage) -> bool {
    entry.state == state::PERMANENT
}
