//! A run from its start to its report.

use crate::curve::ResourceCurve;
use crate::daemon::DaemonProcess;
use crate::error::SoakError;
use crate::options::SoakOptions;
use crate::state::found;
use crate::{caller, schedule, watch, witness};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Deadline for all VMs to be ready: at the beginning, and when the faults are over.
const CONVERGENCE: Duration = Duration::from_secs(60);

/// Time after the last call in which its late effects may appear.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Result of a run.
#[derive(Debug)]
pub struct SoakReport {
    /// Violations, of which only the first ones are kept.
    pub violations: Vec<String>,
    /// Number of all violations.
    pub violation_count: u64,
    /// The last events.
    pub tail: Vec<String>,
    /// Memory and descriptors over time.
    pub curve: ResourceCurve,
    /// Further results, as JSON.
    pub summary: Value,
}

/// Runs the soak test.
///
/// # Errors
///
/// [`SoakError`] if the run cannot be started or its files cannot be written. All other failures are violations.
pub async fn run(options: &SoakOptions) -> Result<SoakReport, SoakError> {
    std::fs::create_dir_all(&options.out)
        .map_err(SoakError::io("cannot create the output directory"))?;
    let mut daemon = DaemonProcess::start(options).await?;
    let (world, bodies) = found(options, &daemon)?;
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch::run(Arc::clone(&world), stop.clone()));
    let witness = tokio::spawn(witness::run(Arc::clone(&world), stop.clone()));
    let begun = watch::until_all_ready(&world, CONVERGENCE).await;
    let mut curve = ResourceCurve::default();
    let mut tasks = JoinSet::new();
    let calling = CancellationToken::new();
    for number in 0..options.callers {
        let rng = StdRng::seed_from_u64(options.seed.wrapping_add(number as u64 + 1));
        tasks.spawn(caller::run(Arc::clone(&world), rng, calling.clone()));
    }
    let rng = StdRng::seed_from_u64(options.seed);
    let faults = tokio::spawn(schedule::run(Arc::clone(&world), bodies, rng, calling.clone()));
    let started = Instant::now();
    while started.elapsed() < options.lasts {
        sleep(Duration::from_secs(1)).await;
        curve.take(&mut daemon, &world, started.elapsed());
    }
    calling.cancel();
    while tasks.join_next().await.is_some() {}
    // Holds the guests until the end of the run.
    let (_bodies, kinds) = faults.await.unwrap_or_default();
    let ended = watch::until_all_ready(&world, CONVERGENCE).await;
    sleep(AFTERMATH).await;
    world.orders.settle_all(&world.journal);
    curve.take(&mut daemon, &world, started.elapsed());
    stop.cancel();
    let _ = tokio::join!(watching, witness);
    daemon.check_log(&world.journal);
    curve.judge(options.vms, &world.journal);
    let summary = json!({
        "seed": options.seed, "seconds": options.lasts.as_secs(), "vms": options.vms,
        "callers": options.callers, "calls": world.calls.load(Ordering::SeqCst),
        "answers": world.journal.answers(), "faults": kinds, "curve": curve.summary(),
        "all_ready_ms": begun.map(|took| took.as_millis()),
        "all_ready_again_ms": ended.map(|took| took.as_millis()),
        "violations": world.journal.violation_count(),
    });
    curve.write(&options.out)?;
    world.journal.write(&options.out, &summary)?;
    Ok(SoakReport {
        violations: world.journal.violations(),
        violation_count: world.journal.violation_count(),
        tail: world.journal.tail(),
        curve,
        summary,
    })
}
