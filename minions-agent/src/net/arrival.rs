//! Waits for network interfaces that do not exist yet: at boot, the agent starts before udev has loaded the drivers of
//! the VM's network cards; later, a host may configure a card immediately after hot-plugging it.

use super::error::NetworkError;
use super::events::NetlinkEvents;
use super::link::{self, Link};
use super::rtnl::Rtnl;
use crate::{boot_clock, error_chain};
use minions_proto::message::{NetworkPlan, Selector};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Shortest deadline: the time in which a hot-plugged card appears.
const PLUGGED_IN: Duration = Duration::from_secs(5);

/// Time after the guest's boot in which udev loads the drivers of the VM's network cards, even on a busy host: five
/// emulated guests on two busy processors took more than 30 s. Shorter than the daemon's default deadline for a network
/// change (60 s).
const BOOTED: Duration = Duration::from_secs(50);

/// Waits until all interfaces of `plan` exist and have their final names: for [`PLUGGED_IN`], or until [`BOOTED`] after
/// the guest's boot, whichever is later. If an interface is still missing then, the change itself fails and names it.
/// Changes nothing. Cancel safe.
pub(super) async fn wait(plan: &NetworkPlan, run: &Path) {
    let patience = BOOTED.saturating_sub(boot_clock::now()).max(PLUGGED_IN);
    if let Ok(Err(error)) = timeout(patience, until_there(plan, run)).await {
        tracing::warn!(error = error_chain(&error), "cannot wait for interfaces");
    }
}

async fn until_there(plan: &NetworkPlan, run: &Path) -> Result<(), NetworkError> {
    // The sockets are opened before interfaces are listed, so that no later change is missed.
    let links = NetlinkEvents::of_links().map_err(NetworkError::Open)?;
    let names = NetlinkEvents::of_udev().map_err(NetworkError::Open)?;
    let rtnl = Rtnl::open().map_err(NetworkError::Open)?;
    loop {
        let present = link::list(&rtnl).await?;
        if selectors(plan).all(|one| link::choose(&present, one).is_some_and(|l| has_name(l, run)))
        {
            return Ok(());
        }
        tokio::select! {
            some = links.next() => some,
            some = names.next() => some,
        }
        .map_err(NetworkError::Open)?;
    }
}

fn selectors(plan: &NetworkPlan) -> impl Iterator<Item = &Selector> {
    let interfaces = plan.interfaces.iter().map(|one| &one.selector);
    interfaces.chain(plan.routes.iter().flatten().map(|one| &one.selector))
}

/// Reports whether the interface has its final name: udev has processed it, udev does not run, or software created the
/// interface. If a change began earlier, the interface would keep the kernel's name or be renamed during the change.
fn has_name(link: &Link, run: &Path) -> bool {
    !link.is_device()
        || !run.join("udev/control").exists()
        || run.join(format!("udev/data/n{}", link.index)).exists()
}
