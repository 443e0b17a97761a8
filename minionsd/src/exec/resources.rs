//! Resources shared by all programs of the daemon.

use crate::budget::MemoryBudget;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Resources shared by all programs of the daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ExecResources {
    /// Tasks that outlive their request: sending `leave`, WebSockets, input of detached programs. The daemon waits for
    /// them when it stops, for a limited time.
    pub(crate) tasks: TaskTracker,
    /// Cancelled once the daemon has been told to stop. From then on no `leave` is sent, because only the daemon goes
    /// away: callers may re-attach to their programs.
    pub(crate) draining: CancellationToken,
    /// Memory budget of collected output.
    pub(crate) output: MemoryBudget,
    /// Permits of WebSockets.
    pub(crate) websockets: Arc<Semaphore>,
}

impl ExecResources {
    pub(crate) fn new(
        tasks: TaskTracker,
        draining: CancellationToken,
        output: MemoryBudget,
        websockets: usize,
    ) -> Self {
        let websockets = Arc::new(Semaphore::new(websockets));
        Self { tasks, draining, output, websockets }
    }
}
