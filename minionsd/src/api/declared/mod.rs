//! Declared state: `/declarations`, `/pools`, `/vms/{vm}/config`.
//!
//! * [`declarations`]: declarations, one by one. [`apply`]: a whole declarations file. [`pools`]: pools, [`leases`]: their
//!   leases. [`vm_config`]: the effective configuration of a VM.
//! * [`revision`]: `ETag` and `If-Match`. [`labels`]: selection of VMs by labels.

pub(super) mod apply;
pub(super) mod declarations;
pub(super) mod labels;
pub(super) mod leases;
pub(super) mod pools;
mod revision;
pub(super) mod vm_config;
