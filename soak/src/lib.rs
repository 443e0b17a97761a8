//! A long run of a real daemon with many misbehaving guests, and a model against which every answer is checked.
//!
//! ```text
//!   callers ──HTTP──▶ minionsd (its own process) ──hybrid vsock──▶ guests ◀── faults, on a seeded
//!      │                    │                                        │        schedule
//!      ▼ every answer       ▼ memory, descriptors, states            ▼ every program run
//!    model ◀────────────── curve, watch ◀──────────────────────── ledger
//! ```
//!
//! Violations are: an answer of another VM, of a life of the VM that was over before the call began, or to an
//! earlier request (`caller`); a program that ran twice, that ran although its caller was told that it did
//! not, or that did not run although its caller was told that it did (`orders`); a failure of a VM without a
//! fault; a VM that does not recover (`watch`); a VM that is reported as gone or replaced while its VMM runs, a
//! reboot that is not reported (`witness`); a dial to a VM that is paused (`fault`); a daemon that grows (`curve`),
//! panics or ends (`daemon`).
//!
//! The seed determines the order of the faults and the requests of the callers. Their exact timing depends on
//! the machine: the same seed produces the same load, not the same run.

mod caller;
mod curve;
mod daemon;
mod error;
mod fault;
mod isolation;
mod journal;
mod judge;
mod member;
mod options;
mod orders;
mod run;
mod schedule;
mod state;
mod watch;
mod witness;

pub use curve::ResourceCurve;
pub use error::SoakError;
pub use isolation::{Isolation, isolation};
pub use options::SoakOptions;
pub use run::{SoakReport, run};
