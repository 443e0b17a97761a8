//! A long run of a real daemon with many misbehaving guests, and a model that checks every answer.
//!
//! ```text
//!   callers ──HTTP──▶ minionsd (its own process) ──hybrid vsock──▶ guests ◀── faults, on a seeded
//!      │                    │                                        │        schedule
//!      ▼ every answer       ▼ memory, descriptors, states            ▼ every program run
//!    model ◀────────────── curve, watch ◀──────────────────────── ledger
//! ```
//!
//! Violations are: an answer of another VM, of a life of the VM that was over before the call began, or to an
//! earlier request (`caller`); a program that ran twice, that ran although its caller was told that it did
//! not, or that did not run although its caller was told that it did (`orders`); a failure of a VM without a
//! fault; a VM that does not recover (`watch`); a VM that is reported as gone or replaced while its VMM runs, a
//! reboot that is not reported (`witness`); a dial to a VM that is paused (`fault`); a daemon that grows (`curve`),
//! panics or ends (`daemon`).
//!
//! The seed determines the order of the faults and the requests of the callers. Their exact timing depends on
//! the machine: the same seed produces the same load, not the same run.

mod caller;
mod curve;
mod daemon;
mod fault;
mod isolation;
mod journal;
mod judge;
mod member;
mod orders;
mod schedule;
mod watch;
mod witness;

pub use curve::ResourceCurve;
pub use isolation::{Isolation, isolation};

use daemon::DaemonProcess;
use journal::Journal;
use member::{VmHandle, VmModel};
use orders::OrderBook;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use testkit::fake_vmm::Ledger;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Deadline for all VMs to be ready: at the beginning, and when the faults are over.
const CONVERGENCE: Duration = Duration::from_secs(60);

/// Time after the last call for its late effects.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Options of a run.
#[derive(Debug, Clone)]
pub struct SoakOptions {
    /// Path of the daemon's program.
    pub minionsd: PathBuf,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Duration of the faults and the calls.
    pub lasts: Duration,
    /// Number of VMs.
    pub vms: usize,
    /// Number of concurrent callers.
    pub callers: usize,
    /// Directory for the curve, the events and the daemon's log.
    pub out: PathBuf,
}

/// Failure to start or finish a run.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// An operation on a file, socket or process failed.
    #[error("{what}")]
    Io {
        /// Description of the failure.
        what: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The HTTP client for the daemon cannot be built.
    #[error("no HTTP client")]
    Client(#[from] reqwest::Error),
}

impl SoakError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Result of a run.
#[derive(Debug)]
pub struct SoakReport {
    /// Violations; only the first ones are kept.
    pub violations: Vec<String>,
    /// Number of violations.
    pub violation_count: u64,
    /// The last events.
    pub tail: Vec<String>,
    /// Memory and descriptors over time.
    pub curve: ResourceCurve,
    /// Further results, for readers and programs.
    pub summary: Value,
}

/// State shared by all parts of a run.
#[derive(Debug)]
struct SoakState {
    members: Vec<Arc<VmModel>>,
    orders: OrderBook,
    journal: Journal,
    lives: AtomicU64,
    calls: AtomicU64,
    http: reqwest::Client,
}

impl SoakState {
    fn next_life(&self) -> u64 {
        self.lives.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn url(path: &str) -> String {
        format!("http://minionsd{path}")
    }
}

/// Runs the soak test.
///
/// # Errors
///
/// [`SoakError`] if the run cannot be started or its files cannot be written. Later faults are violations.
pub async fn run(options: &SoakOptions) -> Result<SoakReport, SoakError> {
    std::fs::create_dir_all(&options.out).map_err(SoakError::io("no output directory"))?;
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
    // The guests must live until the end.
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

/// Creates the guests, each with a socket, and the state of the run.
fn found(
    options: &SoakOptions,
    daemon: &DaemonProcess,
) -> Result<(Arc<SoakState>, Vec<VmHandle>), SoakError> {
    let ledger = Arc::new(Ledger::default());
    let lives = AtomicU64::new(options.vms as u64);
    let mut members = Vec::new();
    let mut bodies = Vec::new();
    for number in 0..options.vms {
        let body = VmHandle::start(number, daemon.vms(), Arc::clone(&ledger))
            .map_err(SoakError::io("a guest has no socket"))?;
        members.push(body.member());
        bodies.push(body);
    }
    let world = SoakState {
        members,
        orders: OrderBook::new(ledger),
        journal: Journal::default(),
        lives,
        calls: AtomicU64::new(0),
        http: daemon.http()?,
    };
    Ok((Arc::new(world), bodies))
}
