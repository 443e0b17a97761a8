//! A long run of a real daemon over many guests that misbehave, with a model that checks every answer.
//!
//! ```text
//!   callers ──HTTP──▶ minionsd (its own process) ──hybrid vsock──▶ guests ◀── faults, on a seeded
//!      │                    │                                        │        schedule
//!      ▼ every answer       ▼ memory, descriptors, states            ▼ every program run
//!    model ◀────────────── curve, watch ◀──────────────────────── ledger
//! ```
//!
//! What is never allowed: an answer of another VM, of a life of the VM that was over before the call
//! began, or to an earlier request (`caller`); a program that ran twice, or that ran although its
//! caller was told that it can't have, or that didn't although he was told that it did (`orders`); a
//! failure of a VM that nothing was done to; a VM that doesn't come back (`watch`); a VM that is gone or
//! replaced while its VMM lives, a reboot that is not told (`witness`); a dial to a VM that is paused
//! (`fault`); a daemon that grows (`curve`), panics or ends (`daemon`).
//!
//! The seed decides which faults come in which order and what callers ask for. When exactly they meet
//! is the machine's: the same seed is the same pressure, not the same run.

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

pub use curve::Curve;
pub use isolation::{Isolation, isolation};

use crate::fake_vmm::Ledger;
use daemon::DaemonProcess;
use journal::Journal;
use member::{Body, Member};
use orders::Orders;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// For all VMs to be ready: at the beginning, and when the faults are over.
const CONVERGENCE: Duration = Duration::from_secs(60);

/// After the last call, for what it may still have set off.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The daemon.
    pub minionsd: PathBuf,
    /// Of everything that is drawn.
    pub seed: u64,
    /// How long faults come and callers call.
    pub lasts: Duration,
    /// How many.
    pub vms: usize,
    /// Calls at once.
    pub callers: usize,
    /// Where the curve, the events and the daemon's log go.
    pub out: PathBuf,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// Files, sockets, processes.
    #[error("{what}")]
    Io {
        /// What could not be done.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// HTTP to the daemon.
    #[error("no HTTP client")]
    Client(#[from] reqwest::Error),
}

impl SoakError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// What must never happen and did; the first ones in full.
    pub violations: Vec<String>,
    /// How many there were.
    pub violation_count: u64,
    /// The last events.
    pub tail: Vec<String>,
    /// Memory and descriptors over time.
    pub curve: Curve,
    /// Everything else, for people and programs.
    pub summary: Value,
}

/// What all parts of a run share.
#[derive(Debug)]
struct World {
    members: Vec<Arc<Member>>,
    orders: Orders,
    journal: Journal,
    lives: AtomicU64,
    calls: AtomicU64,
    http: reqwest::Client,
}

impl World {
    fn next_life(&self) -> u64 {
        self.lives.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn url(path: &str) -> String {
        format!("http://minionsd{path}")
    }
}

/// Runs it.
///
/// # Errors
///
/// [`SoakError`] if it can't begin. What goes wrong later is a violation.
pub async fn run(options: &Options) -> Result<Report, SoakError> {
    std::fs::create_dir_all(&options.out).map_err(SoakError::io("no output directory"))?;
    let mut daemon = DaemonProcess::start(options).await?;
    let (world, bodies) = found(options, &daemon)?;
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch::run(Arc::clone(&world), stop.clone()));
    let witness = tokio::spawn(witness::run(Arc::clone(&world), stop.clone()));
    let begun = watch::until_all_ready(&world, CONVERGENCE).await;
    let mut curve = Curve::default();
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
    // The guests live on until the very end.
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
    Ok(Report {
        violations: world.journal.violations(),
        violation_count: world.journal.violation_count(),
        tail: world.journal.tail(),
        curve,
        summary,
    })
}

/// The daemon's world: guests, each with a socket.
fn found(options: &Options, daemon: &DaemonProcess) -> Result<(Arc<World>, Vec<Body>), SoakError> {
    let ledger = Arc::new(Ledger::default());
    let lives = AtomicU64::new(options.vms as u64);
    let mut members = Vec::new();
    let mut bodies = Vec::new();
    for number in 0..options.vms {
        let body = Body::start(number, &daemon.vms(), Arc::clone(&ledger))
            .map_err(SoakError::io("a guest has no socket"))?;
        members.push(body.member());
        bodies.push(body);
    }
    let world = World {
        members,
        orders: Orders::new(ledger),
        journal: Journal::default(),
        lives,
        calls: AtomicU64::new(0),
        http: daemon.http()?,
    };
    Ok((Arc::new(world), bodies))
}
