//! A single change, from its plan to its result: it is applied completely, or not at all.

use super::checks::ChangeChecks;
use super::desired::DesiredNetwork;
use super::dns::{DnsOwner, SystemPaths};
use super::error::{ChangeError, NetworkError};
use super::journal::ChangeJournal;
use super::link;
use super::rtnl::Rtnl;
use super::snapshot::NetworkSnapshot;
use super::{ConfiguratorState, apply, ipv6, restore};
use crate::error_chain;
use minions_proto::message::{Check, NetworkChanged, NetworkPlan};
use std::time::Duration;
use tokio::time::timeout;

/// Deadline for applying and verifying a change; its parts have shorter ones. Restoring is not included.
const DEADLINE: Duration = Duration::from_secs(45);

/// Makes a change. Returns the reply, and the snapshot to restore if anything was changed; the snapshot is also in
/// the journal.
pub(super) async fn run(
    plan: &NetworkPlan,
    system: &SystemPaths,
    journal: &ChangeJournal,
) -> Result<(NetworkChanged, Option<NetworkSnapshot>), ChangeError> {
    let untouched = |error: NetworkError| ChangeError::untouched(error);
    let rtnl = Rtnl::open().map_err(|error| untouched(NetworkError::Open(error)))?;
    let links = link::list(&rtnl).await.map_err(ChangeError::untouched)?;
    let owner = DnsOwner::detect(system);
    let mut desired = DesiredNetwork::resolve(plan, &links, (owner, system)).map_err(untouched)?;
    ipv6::check(&desired, &links).map_err(untouched)?;
    let snapshot =
        NetworkSnapshot::take(&rtnl, &desired, owner, system).await.map_err(untouched)?;
    desired.keep_dns(&snapshot, (owner, system));
    let checks =
        ChangeChecks::of(plan, &desired, &snapshot, &links).map_err(ChangeError::untouched)?;
    let changes = desired.differences(&snapshot, &links);
    let changed = !changes.is_empty();
    let reply = |message: &str, verified: Vec<Check>, warnings: Vec<String>| NetworkChanged {
        message: message.to_owned(),
        changed: Some(changed),
        changes: Some(changes.clone()),
        dns_owner: plan.dns.as_ref().map(|_| owner.name().to_owned()),
        verified: Some(verified),
        warnings: Some(warnings).filter(|all| !all.is_empty()),
        pending: None,
    };
    if plan.dry_run {
        let message = if changed {
            "dry run: the network would change"
        } else {
            "dry run: nothing would change"
        };
        return Ok((reply(message, Vec::new(), Vec::new()), None));
    }
    let unjournaled = if changed { unjournaled(plan, &snapshot, journal)? } else { None };
    let work = apply::ChangeSteps {
        rtnl: &rtnl,
        desired: &desired,
        checks: &checks,
        snapshot: &snapshot,
        system,
    };
    let mut step = "apply";
    let done = match timeout(DEADLINE, work.run(changed, &mut step)).await {
        Ok(done) => done,
        Err(_) => Err(NetworkError::TooLong),
    };
    match done {
        Ok(warnings) => {
            let warnings = unjournaled.into_iter().chain(warnings).collect();
            let message = if changed { "network configured" } else { "nothing to change" };
            Ok((reply(message, checks.list.clone(), warnings), changed.then_some(snapshot)))
        }
        // Nothing was changed, so there is nothing to restore: the check would have failed before, too.
        Err(error) if !changed => Err(ChangeError { step, error, restored: Ok(()) }),
        Err(error) => Err(put_back(step, error, &snapshot, system, journal).await),
    }
}

/// Writes the snapshot to the journal. A change that waits for confirmation depends on the journal. For any other
/// change, returns a warning if the journal cannot be written: a full `/run` must not prevent a repair of the network.
fn unjournaled(
    plan: &NetworkPlan,
    snapshot: &NetworkSnapshot,
    journal: &ChangeJournal,
) -> Result<Option<String>, ChangeError> {
    match journal.write(snapshot, None) {
        Ok(()) => Ok(None),
        Err(NetworkError::Journal { path, source }) if plan.confirm_within.is_some() => {
            Err(ChangeError {
                step: "journal",
                error: NetworkError::Unconfirmable { path, source },
                restored: Ok(()),
            })
        }
        Err(error) => {
            let reason = error_chain(&error);
            tracing::warn!(error = reason, "network change without a journal");
            Ok(Some(format!(
                "{reason}; if the agent ends during the change, the network is not restored"
            )))
        }
    }
}

/// Restores the network after a change that was applied but cannot be kept.
pub(super) async fn undo(
    step: &'static str,
    error: NetworkError,
    snapshot: &NetworkSnapshot,
    shared: &ConfiguratorState,
) -> ChangeError {
    put_back(step, error, snapshot, &shared.system, &shared.journal).await
}

async fn put_back(
    step: &'static str,
    error: NetworkError,
    snapshot: &NetworkSnapshot,
    system: &SystemPaths,
    journal: &ChangeJournal,
) -> ChangeError {
    let mut restored = restore::run(snapshot, system).await;
    // If the journal remains, the next agent restores the snapshot once more, which is harmless.
    restored = restored.and(journal.clear());
    ChangeError { step, error, restored: restored.map_err(Box::new) }
}
