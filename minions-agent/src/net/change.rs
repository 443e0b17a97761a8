//! One change, from its plan to its end: it is there, or nothing is different.

use super::checks::Checks;
use super::desired::Desired;
use super::dns::{Owner, Places};
use super::journal::Journal;
use super::link::{self, Link};
use super::rtnl::Rtnl;
use super::snapshot::Snapshot;
use super::{ChangeError, NetworkError, Shared, apply};
use minions_proto::message::{Check, NetworkChanged, NetworkPlan};
use std::time::Duration;
use tokio::time::timeout;

/// For everything but putting it back; each part has a shorter one of its own.
const DEADLINE: Duration = Duration::from_secs(45);

/// What was done, and the way back if there is something to put back. The journal has it too.
pub(super) async fn run(
    plan: &NetworkPlan,
    places: &Places,
    journal: &Journal,
) -> Result<(NetworkChanged, Option<Snapshot>), ChangeError> {
    let untouched = |error: NetworkError| ChangeError::untouched(error);
    let rtnl = Rtnl::open().map_err(|error| untouched(NetworkError::Open(error)))?;
    let links = link::list(&rtnl).await.map_err(ChangeError::untouched)?;
    let owner = Owner::detect(places);
    let desired = Desired::resolve(plan, &links, (owner, places)).map_err(untouched)?;
    let touched: Vec<&Link> = desired.links.iter().map(|one| &one.link).collect();
    let snapshot = Snapshot::take(&rtnl, &touched, owner, places).await.map_err(untouched)?;
    let checks = Checks::of(plan, &desired, &snapshot, &links).map_err(ChangeError::untouched)?;
    let changes = desired.differences(&snapshot, &links);
    let changed = !changes.is_empty();
    let reply = |message: &str, verified: Vec<Check>| NetworkChanged {
        message: message.to_owned(),
        changed: Some(changed),
        changes: Some(changes.clone()),
        dns_owner: plan.dns.as_ref().map(|_| owner.name().to_owned()),
        verified: Some(verified),
        pending: None,
    };
    if plan.dry_run {
        let message = if changed { "this would change" } else { "nothing would change" };
        return Ok((reply(message, Vec::new()), None));
    }
    if changed {
        journal.write(&snapshot, None).map_err(untouched)?;
    }
    let work = apply::Work {
        rtnl: &rtnl,
        desired: &desired,
        checks: &checks,
        snapshot: &snapshot,
        places,
    };
    let mut step = "apply";
    let done = match timeout(DEADLINE, work.run(changed, &mut step)).await {
        Ok(done) => done,
        Err(_) => Err(NetworkError::TooLong),
    };
    match done {
        Ok(()) if changed => Ok((reply("network configured", checks.list.clone()), Some(snapshot))),
        Ok(()) => Ok((reply("nothing to change", checks.list.clone()), None)),
        // What doesn't hold has not held before either.
        Err(error) if !changed => Err(ChangeError { step, error, restored: Ok(()) }),
        Err(error) => Err(put_back(step, error, &snapshot, places, journal).await),
    }
}

/// The change was made, and can't stay.
pub(super) async fn undo(
    step: &'static str,
    error: NetworkError,
    snapshot: &Snapshot,
    shared: &Shared,
) -> ChangeError {
    put_back(step, error, snapshot, &shared.places, &shared.journal).await
}

async fn put_back(
    step: &'static str,
    error: NetworkError,
    snapshot: &Snapshot,
    places: &Places,
    journal: &Journal,
) -> ChangeError {
    let mut restored = snapshot.restore(places).await;
    // One that stays would have the next agent do it again, which is no harm.
    restored = restored.and(journal.clear());
    ChangeError { step, error, restored: restored.map_err(Box::new) }
}
