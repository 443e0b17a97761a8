//! Interfaces that are not there yet: the agent is up before udev has loaded a card's driver, and a host
//! that plugs a card in configures it at once.

use super::NetworkError;
use super::events::Events;
use super::link::{self, Link};
use super::rtnl::Rtnl;
use super::snapshot;
use minions_proto::message::{NetworkPlan, Selector};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// For a card that is being plugged in.
const PLUGGED_IN: Duration = Duration::from_secs(5);

/// Since the guest's boot, for all that udev has to do before a card of the VM's own has its driver, on a busy
/// host. The daemon's patience is longer.
const BOOTED: Duration = Duration::from_secs(30);

/// Returns as soon as all interfaces of `plan` are there and have their names, or at a deadline: what is
/// missing then, the change itself says. Nothing is touched, and dropping the future is safe.
pub(super) async fn wait(plan: &NetworkPlan, run: &Path) {
    let up = Duration::from_secs(u64::try_from(snapshot::now()).unwrap_or(u64::MAX));
    let patience = BOOTED.saturating_sub(up).max(PLUGGED_IN);
    if let Ok(Err(error)) = timeout(patience, until_there(plan, run)).await {
        tracing::warn!(error = crate::ops::chain(&error), "not waiting for interfaces");
    }
}

async fn until_there(plan: &NetworkPlan, run: &Path) -> Result<(), NetworkError> {
    // Before the first look, so that nothing is missed between it and them.
    let (links, names) = (Events::of_links(), Events::of_udev());
    let (links, names) = (links.map_err(NetworkError::Open)?, names.map_err(NetworkError::Open)?);
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

/// Whether udev, where it runs, has done with it: an interface that is set up before would keep the
/// kernel's name, or lose it in the middle of a change.
fn has_name(link: &Link, run: &Path) -> bool {
    !link.is_device()
        || !run.join("udev/control").exists()
        || run.join(format!("udev/data/n{}", link.index)).exists()
}
