//! Tests of a VM whose VMM removed its socket: it is kept only as long as that may be a reboot.

use super::registry::{Registry, SharedResources, VmSettings};
use super::silence::serve;
use super::socket_dir::TrustedOwners;
use crate::budget::MemoryBudget;
use crate::config::{Config, RestoreRules, SampleIntervals};
use crate::descriptors::Descriptors;
use minions_api::vm::{Failure, VmState};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const NAME: &str = "web-1";

/// Interval between polls of the state.
const LOOK: Duration = Duration::from_millis(50);

/// Registry over a temporary directory. The test process acts as the VMMs.
struct TestHost {
    registry: Registry,
    dir: TempDir,
    running: watch::Sender<bool>,
}

impl TestHost {
    fn start() -> Self {
        let mode = Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
        let config = Config::parse("").unwrap();
        let trusted = TrustedOwners::of(&config);
        let means = SharedResources {
            descriptors: Descriptors::of_process(),
            budget: MemoryBudget::default(),
            meters: Arc::default(),
        };
        let agent_ports = config.agent_ports.clone();
        let restore = RestoreRules::default();
        let each = VmSettings {
            pool_size: 2,
            clock_limit: None,
            declared: crate::declared::DeclaredStore::open(None).unwrap().0,
            restore,
            reattach_grace: None,
            agent_ports,
            announce: None,
            samples: SampleIntervals::default(),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let registry = Registry::start(dir.path().to_owned(), trusted, each, means, &tasks, &stop);
        Self { registry, dir, running: watch::Sender::new(false) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("web-1.vsock")
    }

    /// Starts a VMM with a guest that answers.
    fn listen(&self) -> JoinHandle<()> {
        let listener = UnixListener::bind(self.path()).unwrap();
        tokio::spawn(serve(listener, Arc::default(), self.running.subscribe()))
    }

    /// Returns the state and the reason; `None` if there is no such VM.
    fn state(&self) -> Option<(VmState, Option<Failure>)> {
        let vms = self.registry.vms()?;
        let status = vms.get(&NAME.parse().unwrap())?.status();
        Some((status.state, status.reason.map(|reason| reason.failure)))
    }

    async fn until(&self, state: Option<(VmState, Option<Failure>)>) {
        let deadline = Instant::now() + Duration::from_mins(2);
        while self.state() != state {
            assert!(Instant::now() < deadline, "{:?} instead of {state:?}", self.state());
            sleep(LOOK).await;
        }
    }
}

const READY: Option<(VmState, Option<Failure>)> = Some((VmState::Ready, None));
const REBOOTING: Option<(VmState, Option<Failure>)> =
    Some((VmState::Unreachable, Some(Failure::Rebooting)));

async fn remove(vmm: JoinHandle<()>, path: &Path) {
    fs::remove_file(path).unwrap();
    vmm.abort();
    let _ = vmm.await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_whose_socket_stays_away_is_gone_after_half_a_minute() {
    let host = TestHost::start();
    let vmm = host.listen();
    host.until(READY).await;
    remove(vmm, &host.path()).await;
    host.until(REBOOTING).await;
    let removed = Instant::now();
    host.until(None).await;
    let kept = removed.elapsed();
    assert!((25..=40).contains(&kept.as_secs()), "gone after {kept:?}");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_returns_in_time_is_the_same_vm_and_a_later_one_is_another() {
    let host = TestHost::start();
    let vmm = host.listen();
    host.until(READY).await;
    let first = host.registry.vms().unwrap();
    remove(vmm, &host.path()).await;
    host.until(REBOOTING).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(host.state(), REBOOTING);
    let vmm = host.listen();
    host.until(READY).await;
    assert!(Arc::ptr_eq(&first, &host.registry.vms().unwrap()), "the set of VMs changed");
    remove(vmm, &host.path()).await;
    host.until(None).await;
    let _vmm = host.listen();
    host.until(READY).await;
}

#[tokio::test(start_paused = true)]
async fn in_a_directory_that_is_no_longer_trusted_no_vm_counts_as_rebooting() {
    let host = TestHost::start();
    let _vmm = host.listen();
    host.until(READY).await;
    fs::set_permissions(host.dir.path(), Permissions::from_mode(0o777)).unwrap();
    let closed = Instant::now();
    host.until(None).await;
    assert!(closed.elapsed() < Duration::from_secs(10), "{:?}", closed.elapsed());
}
