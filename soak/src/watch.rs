//! Check that VMs recover without help.

use crate::member::VmCondition;
use crate::state::SoakState;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Interval between two checks.
const LOOK: Duration = Duration::from_millis(500);

/// Time after a fault within which a VM must be ready again: probes are about 5 s apart, each takes at most 3 s, and
/// the machine may be busy.
const RECOVERY: Duration = Duration::from_secs(40);

/// Checks the states, and settles orders, until `stop` is cancelled.
pub(super) async fn run(world: Arc<SoakState>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        look(&world).await;
        world.orders.settle(&world.journal);
        tokio::select! {
            () = sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn look(world: &SoakState) {
    let Some(list) = world.get("/vms").await else { return };
    let listed = list.json["vms"].as_array().map_or(&[][..], Vec::as_slice);
    for member in &world.members {
        if let Some(life) = member.untold_for(RECOVERY) {
            let name = &member.name;
            world
                .journal
                .violation(format!("{name} booted as life {life}, but no vm.rebooted was sent"));
        }
        let state = listed.iter().find(|vm| vm["name"] == member.name.as_str());
        let state = state.map_or(&Value::Null, |vm| &vm["state"]);
        if state.is_null() && !member.may_have_been_gone(Instant::now()) {
            let name = &member.name;
            world.journal.violation(format!("{name} is not listed, although its VMM runs"));
        }
        if state == "ready" {
            member.seen_ready();
        } else if let VmCondition::Recovering(since) = member.condition()
            && since.elapsed() > RECOVERY
        {
            let name = &member.name;
            world.journal.violation(format!("{name} is {state} long after its fault ended"));
            // Reported once: then the time starts again.
            member.relieve();
        } else if member.condition() == VmCondition::Calm {
            let name = &member.name;
            world.journal.violation(format!("{name} became {state} without a fault"));
            member.relieve();
        }
    }
}

/// Returns the time until all VMs were ready; records a violation and returns `None` if it took too long.
pub(super) async fn until_all_ready(world: &SoakState, patience: Duration) -> Option<Duration> {
    let started = Instant::now();
    while started.elapsed() < patience {
        if let Some(list) = world.get("/vms").await {
            let vms = list.json["vms"].as_array().map_or(&[][..], Vec::as_slice);
            let ready = vms.iter().filter(|vm| vm["state"] == "ready").count();
            if ready == world.members.len() {
                return Some(started.elapsed());
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    let what = format!("not all VMs are ready {} s after the last fault", patience.as_secs());
    world.journal.violation(what);
    None
}
