//! Limits of the pool that no call reaches in a short time.

use super::*;
use crate::agent::Dials;
use crate::agent::gate::Permission;
use crate::agent::vm_socket::{SocketId, VmSocket};
use crate::budget::MemoryBudget;
use crate::descriptors::Descriptors;
use crate::metrics::Meters;
use futures_util::FutureExt;
use minions_proto::handshake::{accept, grant};
use std::pin::Pin;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{advance, pause, resume};
use tokio_util::task::TaskTracker;

/// Deadline for anything that happens at once on an idle machine.
pub(in crate::agent) const DEADLINE: Duration = Duration::from_secs(20);

/// Most dials of all pools together: more than one pool starts.
const DIALS: usize = 16;

/// Pool of a VM whose connections the test accepts.
pub(in crate::agent) struct PoolOfVm {
    pub(in crate::agent) pool: Pool,
    dials: Dials,
    listener: UnixListener,
    _dir: TempDir,
}

impl PoolOfVm {
    pub(in crate::agent) fn new(limit: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web-1.vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = VmSocket { id: SocketId::at(&path).unwrap(), path };
        let (descriptors, meters) = (Descriptors::of_process(), Arc::new(Meters::default()));
        let budget = MemoryBudget::default();
        let dials = Dials::new(DIALS, TaskTracker::new(), descriptors, budget, meters);
        let pool = Pool::new(Connector::new(socket, dials.clone()), limit, Arc::default());
        Self { pool, dials, listener, _dir: dir }
    }

    /// Leaves one idle connection in the pool, and returns the VMM's end of it.
    async fn with_idle_connection(&self) -> UnixStream {
        let (checkout, vmm) = self.new_connection(Lane::Quick).await;
        drop(checkout);
        assert_eq!(self.pool.figures().idle, 1);
        vmm
    }

    /// Leaves one idle connection in the pool that has just carried a stream, and returns the VMM's end of it.
    async fn with_idle_connection_of_stream(&self) -> UnixStream {
        let (checkout, vmm) = self.new_connection(Lane::Stream).await;
        self.give_back_after_stream(checkout);
        assert_eq!(self.pool.figures().idle, 1);
        vmm
    }

    fn give_back_after_stream(&self, checkout: Checkout) {
        let (connection, epoch, _permit) = checkout.into_parts().unwrap();
        let idle = IdleConnection { connection, since: Instant::now(), after_stream: true };
        self.pool.0.pooled.give_back(idle, &epoch);
    }

    /// Accepts a connection that the pool dials, and returns the VMM's end of it.
    pub(in crate::agent) async fn accept(&self) -> UnixStream {
        let accepted = timeout_at(Instant::now() + DEADLINE, self.listener.accept()).await;
        let (mut stream, _) = accepted.expect("the pool dials").unwrap();
        accept(&mut stream, DEADLINE).await.unwrap();
        grant(&mut stream, 7).await.unwrap();
        stream
    }

    /// Takes a connection from the pool, which must dial, and returns it with the VMM's end of it.
    async fn new_connection(&self, lane: Lane) -> (Checkout, UnixStream) {
        let checkout = self.pool.checkout(lane, true, Instant::now() + DEADLINE);
        let (checkout, vmm) = tokio::join!(checkout, self.accept());
        (checkout.unwrap(), vmm)
    }

    /// Reports whether a call gets the idle connection at once, without a health check. Otherwise the checkout is
    /// abandoned after it has begun the check.
    fn reuses_at_once(&self, lane: Lane, idempotent: bool) -> bool {
        let checkout = self.pool.checkout(lane, idempotent, Instant::now() + DEADLINE);
        checkout.now_or_never().is_some_and(|checkout| checkout.unwrap().is_reused())
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

#[tokio::test]
async fn a_call_that_must_not_be_repeated_checks_a_connection_that_was_idle_for_a_second() {
    for (idle_ms, lane, idempotent, expected) in [
        (0, Lane::Quick, false, true),
        (999, Lane::Stream, false, true),
        (1_000, Lane::Stream, false, false),
        (1_000, Lane::Quick, false, false),
        (30_000, Lane::Quick, false, false),
        (30_000, Lane::Quick, true, true),
    ] {
        let vm = PoolOfVm::new(2);
        let _vmm = vm.with_idle_connection().await;
        pause();
        advance(Duration::from_millis(idle_ms)).await;
        let reused = vm.reuses_at_once(lane, idempotent);
        assert_eq!(reused, expected, "{lane:?}, {idempotent}, idle for {idle_ms} ms");
        resume();
    }
}

#[tokio::test]
async fn only_a_stream_takes_a_connection_of_a_stream_without_a_check() {
    for (lane, idempotent, expected) in [
        (Lane::Stream, false, true),
        (Lane::Quick, true, true),
        (Lane::Quick, false, false),
        (Lane::Forward, false, false),
    ] {
        let vm = PoolOfVm::new(2);
        let _vmm = vm.with_idle_connection_of_stream().await;
        assert_eq!(vm.reuses_at_once(lane, idempotent), expected, "{lane:?}, {idempotent}");
    }
}

#[tokio::test]
async fn streams_leave_no_more_idle_connections_than_the_limit() {
    let vm = PoolOfVm::new(2);
    let mut used = Vec::new();
    for _ in 0..4 {
        used.push(vm.new_connection(Lane::Stream).await);
    }
    let _vmms: Vec<_> = used
        .into_iter()
        .map(|(checkout, vmm)| {
            vm.give_back_after_stream(checkout);
            vmm
        })
        .collect();
    assert_eq!(vm.pool.figures().idle, 2);
}

#[tokio::test]
async fn eight_streams_dial_at_once_and_a_quick_call_does_not_wait_for_them() {
    let vm = PoolOfVm::new(2);
    let checkout = |lane| Box::pin(vm.pool.checkout(lane, false, Instant::now() + DEADLINE));
    let lanes = [Lane::Stream, Lane::Background, Lane::Forward, Lane::Stream];
    let mut streams: Vec<_> = lanes.into_iter().cycle().take(12).map(checkout).collect();
    // No dial is answered, so each of them stays in flight.
    assert!(streams.iter_mut().all(|stream| stream.now_or_never().is_none()));
    assert_eq!(vm.dials.in_flight(), 8);
    let mut quick = checkout(Lane::Quick);
    assert!(quick.as_mut().now_or_never().is_none());
    assert_eq!(vm.dials.in_flight(), 9);
}
