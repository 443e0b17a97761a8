//! Measurement of the effect of hanging VMs on healthy ones.

use crate::daemon::DaemonProcess;
use crate::error::SoakError;
use crate::options::SoakOptions;
use crate::state::{SoakState, found};
use crate::watch;
use std::sync::Arc;
use std::time::Duration;
use testkit::fake_vmm::Behaviour;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Number of measurement windows of each kind. The kinds alternate, so that other load on the machine affects both.
const ROUNDS: u32 = 5;

/// Number of callers of healthy VMs: few, so that latency is measured and not queueing.
const CALLERS: usize = 4;

/// Number of callers of hanging VMs.
const STUBBORN: usize = 4;

/// Deadline for all VMs to be ready again, at the start and after each window.
const SETTLING: Duration = Duration::from_secs(30);

/// Health latencies of healthy VMs, in microseconds, sorted.
#[derive(Debug, Default)]
pub struct Isolation {
    /// Latencies while all VMs are healthy.
    pub alone: Vec<u64>,
    /// Latencies while a tenth of all VMs hangs, and calls to them are made.
    pub beside: Vec<u64>,
}

impl Isolation {
    /// Returns a percentile of both series.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> (u64, u64) {
        let of = |sorted: &[u64]| {
            let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(at).copied().unwrap_or(0)
        };
        (of(&self.alone), of(&self.beside))
    }
}

/// Measures the latencies, for about `options.lasts` in total.
///
/// # Errors
///
/// [`SoakError`] if the daemon or the guests cannot be started.
pub async fn isolation(options: &SoakOptions) -> Result<Isolation, SoakError> {
    std::fs::create_dir_all(&options.out)
        .map_err(SoakError::io("cannot create the output directory"))?;
    let daemon = DaemonProcess::start(options).await?;
    let (world, bodies) = found(options, &daemon)?;
    watch::until_all_ready(&world, SETTLING).await;
    let wedged = options.vms / 10;
    let window = options.lasts / (2 * ROUNDS);
    let mut measured = Isolation::default();
    measure(&world, wedged, window / 2, false).await;
    for _ in 0..ROUNDS {
        measured.alone.extend(measure(&world, wedged, window, false).await);
        for body in &bodies[..wedged] {
            body.switch_to(Behaviour::Silent);
        }
        measured.beside.extend(measure(&world, wedged, window, true).await);
        for body in &bodies[..wedged] {
            body.switch_to(Behaviour::Guest(body.member().guest()));
        }
        watch::until_all_ready(&world, SETTLING).await;
    }
    measured.alone.sort_unstable();
    measured.beside.sort_unstable();
    Ok(measured)
}

/// Measures latencies of the VMs from `wedged` on. If `stubborn`, the VMs before it are called too.
async fn measure(
    world: &Arc<SoakState>,
    wedged: usize,
    lasts: Duration,
    stubborn: bool,
) -> Vec<u64> {
    let until = Instant::now() + lasts;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(call(Arc::clone(world), wedged, world.members.len(), caller, until));
    }
    for caller in 0..STUBBORN {
        let world = Arc::clone(world);
        // The number of callers is the same in both cases, so that their own cost cancels out.
        let (from, to) = if stubborn { (0, wedged) } else { (wedged, world.members.len()) };
        callers.spawn(async move {
            call(world, from, to, caller, until).await;
            Vec::new()
        });
    }
    callers.join_all().await.into_iter().flatten().collect()
}

async fn call(
    world: Arc<SoakState>,
    from: usize,
    to: usize,
    caller: usize,
    until: Instant,
) -> Vec<u64> {
    let mut took = Vec::new();
    let mut at = caller;
    while Instant::now() < until {
        at += CALLERS;
        let name = &world.members[from + at % (to - from)].name;
        let started = Instant::now();
        world.get(&format!("/vms/{name}/health?timeout_ms=1000")).await;
        took.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        // Real callers pause between calls. Without a pause, the saturated machine would be measured.
        sleep(Duration::from_millis(2)).await;
    }
    took
}
