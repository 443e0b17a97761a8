//! Declared state of VMs: what each VM must have, and the addresses that it gets.
//!
//! This crate has no I/O and no clock. Every mutation has two steps: a `plan_…` function checks a request against the
//! state and returns a [`Plan`], and [`DeclaredState::commit`] applies its changes. Between the two, the daemon writes the
//! changes to its database, so nothing is in the state that is not in the database.
//!
//! # Layout
//!
//! * [`target`]: names and patterns of declarations, and their order. [`declaration_set`]: all declarations.
//! * [`free_addresses`]: sets of addresses. [`address_pool`]: a checked pool. [`lease_book`]: leases by address and VM.
//! * [`effective`]: the configuration of one VM, merged field by field. [`network`]: the request for its agent.
//!   [`explain`]: which declarations have each field.
//! * [`check`] (with `guest_policy`): checks of one declaration. [`diff`]: differences between two versions of an item.
//! * [`state`]: everything together. [`apply`] (with `draft`), [`leasing`]: plans of changes.
//! * [`document`]: declarations files.

pub mod address_pool;
pub mod apply;
pub mod check;
pub mod declaration_set;
pub mod diff;
#[cfg(feature = "document")]
pub mod document;
mod draft;
pub mod effective;
pub mod error;
pub mod explain;
pub mod free_addresses;
mod guest_policy;
pub mod lease_book;
pub mod leasing;
pub mod network;
pub mod state;
pub mod target;

pub use apply::IfRevision;
pub use effective::{EffectiveConfig, LeaseNeed};
pub use error::DeclareError;
pub use state::{Change, DeclaredState, Plan, StoredPool};
pub use target::Target;
