//! Programs in guests, from their start to their end.
//!
//! ```text
//!              exec_start                      exec_attach, from the same byte
//!  caller ──▶ Driver ══ stream ═══ agent   ┌──▶ Driver ══ another stream ═══ agent
//!               │ the connection breaks    │
//!               └──────────────────────────┘ for as long as the agent waits (15 s)
//!
//!  caller gone: `leave` on whatever stream there is, and the agent ends it, or lets it go on
//! ```
//!
//! * [`opening`]: the first stream to a program, and the next one after that broke.
//! * [`hold`]: a program that somebody holds. Letting go says `leave`.
//! * [`driver`]: what a program says, without a byte missing and none twice.
//! * [`heartbeat`]: which heartbeats of an agent are passed to a client.
//! * [`collected`]: all of it at once, within a [budget](crate::budget).
//! * [`plain`]: the same from agents that know a program as one request and one reply.

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

/// What all programs of the daemon share. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Execs {
    /// What outlives the request that began it: farewells, WebSockets, input for what was detached.
    /// The daemon's end waits for them, within bounds.
    pub(crate) tasks: TaskTracker,
    /// Cancelled once the daemon has been told to stop. From then on nobody *leaves*: it is the
    /// daemon that goes, and callers may come back to what they started.
    pub(crate) draining: CancellationToken,
    /// For collected output.
    pub(crate) output: Budget,
    /// For WebSockets.
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

/// Where a program is: in a VM, behind one start of its agent.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) vm: Vm,
    pub(crate) instance: Instance,
}
