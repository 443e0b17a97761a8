//! The sequence of faults and their targets.

use crate::fault::VmFault;
use crate::member::VmHandle;
use crate::state::SoakState;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Average time between two faults, in milliseconds.
const GAP_MS: u64 = 250;

/// Number of faults so far, by kind.
pub(super) type Kinds = BTreeMap<String, u64>;

/// Injects faults until `stop` is cancelled. Returns the VMs, and the number of faults, when all faults are over.
pub(super) async fn run(
    world: Arc<SoakState>,
    bodies: Vec<VmHandle>,
    mut rng: StdRng,
    stop: CancellationToken,
) -> (Vec<VmHandle>, Kinds) {
    let most = (bodies.len() / 10).max(1);
    let mut bodies: Vec<_> = bodies.into_iter().map(Some).collect();
    let mut afflicted = JoinSet::new();
    let mut kinds = Kinds::new();
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(Ok((at, body))) = afflicted.join_next() => bodies[at] = Some(body),
            () = sleep_until(next) => {
                next += Duration::from_millis(rng.random_range(0..2 * GAP_MS));
                // Both are drawn even if the VM still has a fault, so that the sequence does not depend on durations.
                let (at, fault) = (rng.random_range(0..bodies.len()), VmFault::draw(&mut rng));
                if afflicted.len() < most && let Some(body) = bodies[at].take() {
                    *kinds.entry(fault.name()).or_insert(0) += 1;
                    afflicted.spawn(afflict(Arc::clone(&world), at, body, fault));
                }
            }
        }
    }
    while let Some(ended) = afflicted.join_next().await {
        if let Ok((at, body)) = ended {
            bodies[at] = Some(body);
        }
    }
    (bodies.into_iter().flatten().collect(), kinds)
}

async fn afflict(
    world: Arc<SoakState>,
    at: usize,
    mut body: VmHandle,
    fault: VmFault,
) -> (usize, VmHandle) {
    let member = body.member();
    let was_calm = member.afflict();
    world.journal.event(format!("{} begins: {fault:?}", member.name));
    if let Err(error) = fault.run(&mut body, &world, was_calm).await {
        // This is a failure of the soak test, not of the daemon, but it makes the run invalid.
        world.journal.violation(format!("{}: {fault:?} failed: {error}", member.name));
    }
    member.relieve();
    world.journal.event(format!("{} ends: {}", member.name, fault.name()));
    (at, body)
}
