//! REST types, shared by the daemon that serves them and the command line that reads them.
//!
//! Health, status and exec bodies use the wire's field names. The wire (`minions-proto`) is frozen,
//! and this crate evolves, so requests and whole replies are types of this crate. Requests reject
//! unknown fields, so that no part of a request is dropped silently. Replies may gain fields at any
//! time. A part of a reply that has the same fields on the wire is the wire's type, re-exported,
//! until one of the two changes.
//!
//! # Layout
//!
//! * [`vm_name`]: grammar of VM names. [`vm_pattern`]: patterns of them.
//! * [`vm`]: the registry's knowledge of a VM.
//! * [`health`], [`status`], [`network`], [`exec`], [`files`], [`forward`], [`clock`], [`power`], [`quiesce`]: one file per
//!   resource.
//! * [`restore`]: restores from a snapshot. [`samples`]: figures of a guest over the last hour.
//! * [`declaration`]: settings that VMs must have. [`explanation`]: where the settings of a VM come from.
//! * [`pool`]: addresses for them. [`label`]: labels of VMs.
//! * [`event`]: changes of VMs.
//! * [`service`]: the daemon itself, and its caller.
//! * [`problem`]: failures (RFC 9457); [`error_code`]: the table of their stable codes.
//! * [`object_form`]: deserializers that refuse lists in place of objects.
//! * [`timestamp`]: points in time as RFC 3339.

pub mod clock;
pub mod declaration;
pub mod error_code;
pub mod event;
pub mod exec;
pub mod explanation;
pub mod files;
pub mod forward;
pub mod health;
pub mod label;
pub mod network;
pub mod object_form;
pub mod pool;
pub mod power;
pub mod problem;
pub mod quiesce;
pub mod restore;
pub mod samples;
pub mod service;
pub mod status;
pub mod timestamp;
pub mod vm;
pub mod vm_name;
pub mod vm_pattern;

pub use error_code::ErrorCode;
pub use problem::Problem;
pub use timestamp::Timestamp;
pub use vm_name::VmName;
pub use vm_pattern::VmPattern;
