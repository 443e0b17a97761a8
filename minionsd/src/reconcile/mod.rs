//! Reconciler: applies the declared configuration to each VM that becomes ready, and looks for drift.
//!
//! ```text
//!  events of VMs ─────┐
//!  revision of state ─┼─▶ one task with a record per VM ──▶ attempts, bounded over all, one per VM
//!  requests ──────────┘            │                             │ lease addresses, compare, change, verify
//!                                  ▼                             ▼
//!                             conditions, events            agent of the VM
//! ```
//!
//! * [`conditions`]: agreement of each VM with its configuration, for all readers.
//! * [`wanted`]: configuration of a VM, reduced to what decides about a new attempt.
//! * [`attempt`]: one comparison or change. [`schedule`]: times of the next attempts, and their limits.
//! * [`task`]: the task. [`record`]: its state for one VM. [`results`]: results of attempts. [`handle`]: requests to it.
//! * [`sweep`]: the end of leases. [`lease_ages`]: their times.

mod attempt;
mod conditions;
mod handle;
mod lease_ages;
mod record;
mod results;
mod schedule;
mod sweep;
mod task;
#[cfg(test)]
mod tests;
mod wanted;

pub(crate) use conditions::{VmCondition, VmConditions};
pub(crate) use handle::{NotApplied, Reconciler};
pub(crate) use sweep::release;
pub(crate) use task::ReconcilerParts;
pub(crate) use wanted::is_declared;
