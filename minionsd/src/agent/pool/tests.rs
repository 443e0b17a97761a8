//! Limits of the pool that no call reaches in a short time.

use super::*;
use crate::agent::Dials;
use crate::agent::gate::Permission;
use crate::agent::vm_socket::{SocketId, VmSocket};
use crate::budget::Budget;
use crate::descriptors::Descriptors;
use crate::metrics::Meters;
use futures_util::FutureExt;
use minions_proto::handshake::{accept, grant};
use std::pin::Pin;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{advance, pause};
use tokio_util::task::TaskTracker;

const DEADLINE: Duration = Duration::from_secs(20);

/// Pool of a VM whose connections the test accepts.
struct PoolOfVm {
    pool: Pool,
    listener: UnixListener,
    _dir: TempDir,
}

impl PoolOfVm {
    fn new(limit: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web-1.vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = VmSocket { id: SocketId::at(&path).unwrap(), path };
        let (descriptors, meters) = (Descriptors::of_process(), Arc::new(Meters::default()));
        let dials = Dials::new(4, TaskTracker::new(), descriptors, Budget::default(), meters);
        let pool = Pool::new(Connector::new(socket, dials), limit, Arc::default());
        Self { pool, listener, _dir: dir }
    }

    /// Leaves one idle connection in the pool, and returns the VMM's end of it.
    async fn with_idle_connection(&self) -> UnixStream {
        let vmm = async {
            let accepted = timeout_at(Instant::now() + DEADLINE, self.listener.accept()).await;
            let (mut stream, _) = accepted.expect("the pool dials").unwrap();
            accept(&mut stream, DEADLINE).await.unwrap();
            grant(&mut stream, 7).await.unwrap();
            stream
        };
        let checkout = self.pool.checkout(Lane::Quick, true, Instant::now() + DEADLINE);
        let (checkout, vmm) = tokio::join!(checkout, vmm);
        drop(checkout.unwrap());
        assert_eq!(self.pool.figures().idle, 1);
        vmm
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_60_seconds() {
    let vm = PoolOfVm::new(2);
    let _vmm = vm.with_idle_connection().await;
    pause();
    advance(Duration::from_secs(59)).await;
    vm.pool.evict_idle();
    assert_eq!(vm.pool.figures().idle, 1);
    advance(Duration::from_secs(1)).await;
    vm.pool.evict_idle();
    assert_eq!(vm.pool.figures().idle, 0);
}

#[tokio::test]
async fn no_connection_of_a_vm_that_may_be_paused_is_closed() {
    let vm = PoolOfVm::new(2);
    let _vmm = vm.with_idle_connection().await;
    vm.pool.gate().set(Permission::Asked);
    pause();
    advance(Duration::from_secs(600)).await;
    vm.pool.evict_idle();
    assert_eq!(vm.pool.figures().idle, 1);
    vm.pool.gate().set(Permission::Answered(Instant::now()));
    vm.pool.evict_idle();
    assert_eq!(vm.pool.figures().idle, 0);
}

#[tokio::test]
async fn an_idle_connection_that_the_vmm_closed_is_replaced() {
    let vm = PoolOfVm::new(2);
    drop(vm.with_idle_connection().await);
    // Succeeds only with a second connection.
    let _vmm = vm.with_idle_connection().await;
}

#[tokio::test(start_paused = true)]
async fn exactly_256_callers_wait_for_a_permit_and_the_next_is_refused() {
    let pool = PoolOfVm::new(2).pool;
    let deadline = Instant::now() + DEADLINE;
    let only = pool.permit(Lane::Long, deadline).await.unwrap();
    let mut callers: Vec<Pin<Box<_>>> =
        (0..257).map(|_| Box::pin(pool.permit(Lane::Long, deadline))).collect();
    for (number, caller) in callers.iter_mut().take(256).enumerate() {
        assert!(caller.now_or_never().is_none(), "caller {number} does not wait");
    }
    assert_eq!(pool.figures().waiting, 256);
    let refused = callers[256].as_mut().now_or_never();
    assert!(matches!(refused, Some(Err(CheckoutError::Exhausted))), "{refused:?}");
    // The permit passes to the first caller, so another one can wait.
    drop(only);
    // A task may poll only a limited number of semaphores before it yields.
    tokio::task::yield_now().await;
    let _permit = callers[0].as_mut().now_or_never().unwrap().unwrap();
    assert!(pool.permit(Lane::Long, deadline).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_5_seconds_for_a_permit() {
    let pool = PoolOfVm::new(2).pool;
    let begun = Instant::now();
    let _only = pool.permit(Lane::Long, begun + DEADLINE).await.unwrap();
    let refused = pool.permit(Lane::Long, begun + DEADLINE).await;
    assert!(matches!(refused, Err(CheckoutError::Exhausted)), "{refused:?}");
    assert_eq!(begun.elapsed().as_secs(), 5);
    let late = pool.permit(Lane::Long, Instant::now() + Duration::from_secs(1)).await;
    assert!(matches!(late, Err(CheckoutError::TimedOut)), "{late:?}");
}
