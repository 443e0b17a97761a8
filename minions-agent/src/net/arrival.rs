//! Waiting for interfaces that do not exist yet: the agent starts before udev has loaded a card's driver, and a
//! host configures a hot-plugged card at once.

use super::NetworkError;
use super::events::NetlinkEvents;
use super::link::{self, Link};
use super::rtnl::Rtnl;
use crate::{boot_clock, error_chain};
use minions_proto::message::{NetworkPlan, Selector};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Deadline for a card that is being hot-plugged.
const PLUGGED_IN: Duration = Duration::from_secs(5);

/// Deadline after the guest's boot, until udev has loaded the drivers of the VM's cards on a busy host. The
/// daemon's own deadline for the request is longer.
const BOOTED: Duration = Duration::from_secs(30);

/// Returns as soon as all interfaces of `plan` exist and have their names, or at a deadline; the change then
/// reports what is missing. Changes nothing. Cancel safe.
pub(super) async fn wait(plan: &NetworkPlan, run: &Path) {
    let patience = BOOTED.saturating_sub(boot_clock::now()).max(PLUGGED_IN);
    if let Ok(Err(error)) = timeout(patience, until_there(plan, run)).await {
        tracing::warn!(error = error_chain(&error), "cannot wait for interfaces");
    }
}

async fn until_there(plan: &NetworkPlan, run: &Path) -> Result<(), NetworkError> {
    // Before the first listing, so that no event after it is missed.
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

/// Reports whether the interface has its final name: udev has processed it, or udev does not run. An interface that
/// is set up earlier would keep the kernel's name, or be renamed in the middle of a change.
fn has_name(link: &Link, run: &Path) -> bool {
    !link.is_device()
        || !run.join("udev/control").exists()
        || run.join(format!("udev/data/n{}", link.index)).exists()
}
