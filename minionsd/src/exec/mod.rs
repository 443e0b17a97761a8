//! Programs in guests, from their start to their end.
//!
//! ```text
//!              exec_start                      exec_attach, from the same byte
//!  caller ──▶ Driver ══ stream ═══ agent   ┌──▶ Driver ══ another stream ═══ agent
//!               │ the connection breaks    │
//!               └──────────────────────────┘ for as long as the agent waits (15 s)
//!
//!  caller gone: `leave` on the current stream; the agent then ends the program or lets it run (`on_disconnect`)
//! ```
//!
//! * [`opening`]: opening the first stream to a program, and re-attaching after a stream broke.
//! * [`hold`]: the lease of a program. Dropping it sends `leave`.
//! * [`driver`]: reads a program's output exactly once, re-attaching after a lost connection.
//! * [`heartbeat`]: rate limit of the heartbeats that are passed to a client.
//! * [`collected`]: collects the whole output of a program, within a [budget](crate::budget).
//! * [`plain`]: programs of agents that only support one request and one reply per program.

pub(crate) mod collected;
pub(crate) mod driver;
pub(crate) mod heartbeat;
pub(crate) mod hold;
pub(crate) mod opening;
pub(crate) mod plain;

pub(crate) use collected::Collected;
pub(crate) use driver::{Driver, Happened};

use crate::agent::Instance;
use crate::budget::Budget;
use crate::vm::Vm;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Resources shared by all programs of the daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Execs {
    /// Tasks that outlive their request: sending `leave`, WebSockets, input of detached programs. The daemon waits for
    /// them when it stops, for a limited time.
    pub(crate) tasks: TaskTracker,
    /// Cancelled once the daemon has been told to stop. From then on no `leave` is sent, because only the daemon goes
    /// away: callers may re-attach to their programs.
    pub(crate) draining: CancellationToken,
    /// Memory budget of collected output.
    pub(crate) output: Budget,
    /// Permits of WebSockets.
    pub(crate) websockets: Arc<Semaphore>,
}

impl Execs {
    pub(crate) fn new(
        tasks: TaskTracker,
        draining: CancellationToken,
        output: Budget,
        websockets: usize,
    ) -> Self {
        let websockets = Arc::new(Semaphore::new(websockets));
        Self { tasks, draining, output, websockets }
    }
}

/// Location of a program: a VM, and one instance (start) of its agent.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) vm: Vm,
    pub(crate) instance: Instance,
}
