//! Programs in guests, from their start to their end.
//!
//! ```text
//!                exec_start                        exec_attach, from the same byte
//!  caller ──▶ ExecDriver ══ stream ═══ agent   ┌──▶ ExecDriver ══ another stream ═══ agent
//!                 │ the connection breaks      │
//!                 └────────────────────────────┘ for as long as the agent waits (re-attach grace)
//!
//!  caller gone: `leave` on the current stream; the agent then ends the program or lets it run (`on_disconnect`)
//! ```
//!
//! * [`plan`]: a program to be run, with its time limits.
//! * [`running`]: the only way to start a program, on an agent of any version, and a program's events.
//! * [`target`]: location of a program: a VM, and one instance of its agent.
//! * [`opening`]: opening the first stream to a program, and re-attaching after a stream broke.
//! * [`lease`]: the lease of a program. Dropping it sends `leave`.
//! * [`driver`]: reads a program's output exactly once, re-attaching after a lost connection.
//! * [`acks`], [`heartbeat`]: acknowledgement of output for simple clients, and the rate limit of the heartbeats that
//!   are passed to a client.
//! * [`collected`]: collects the whole output of a program, within a [budget](crate::budget).
//! * [`plain`]: programs of agents that only support one request and one reply per program.
//! * [`error`]: failures of programs.
//! * [`resources`]: resources shared by all programs.

pub(crate) mod acks;
pub(crate) mod collected;
mod driver;
mod error;
pub(crate) mod heartbeat;
pub(crate) mod lease;
mod opening;
mod plain;
pub(crate) mod plan;
mod resources;
mod running;
mod target;

pub(crate) use collected::CollectedOutput;
pub(crate) use driver::{DriverEvent, ExecDriver};
pub(crate) use error::ExecError;
pub(crate) use plain::PlainExec;
pub(crate) use plan::ExecPlan;
pub(crate) use resources::ExecResources;
pub(crate) use running::{ExecDeadlines, RunningExec, detach};
pub(crate) use target::ExecTarget;
