//! Ids of the guest's boot and of the agent's start.
//!
//! A host that reconnects compares both with the earlier ones, to find out whether the guest or the agent
//! has restarted.

use minions_proto::message::{BootId, InstanceId};
use std::fs;
use std::io;

/// Every read of this file returns a new random UUID.
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";

/// Both ids, read once at start: neither changes while the agent runs.
#[derive(Debug, Clone)]
pub(crate) struct AgentIdentity {
    /// The kernel's boot id: changes with every boot.
    pub(crate) boot_id: BootId,
    /// Random id of this agent process: changes with every start of the agent.
    pub(crate) instance_id: InstanceId,
}

/// Failure to read a file in `/proc` that the agent needs to start.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path} (is /proc mounted?)")]
pub struct IdentityError {
    path: &'static str,
    source: io::Error,
}

impl AgentIdentity {
    /// Reads the kernel's boot id and generates an instance id.
    pub(crate) fn mint() -> Result<Self, IdentityError> {
        Ok(Self {
            boot_id: read("/proc/sys/kernel/random/boot_id")?.into(),
            instance_id: read(RANDOM_UUID)?.into(),
        })
    }
}

/// Returns a random UUID.
pub(crate) fn random_uuid() -> Result<String, IdentityError> {
    read(RANDOM_UUID)
}

fn read(path: &'static str) -> Result<String, IdentityError> {
    let text = fs::read_to_string(path).map_err(|source| IdentityError { path, source })?;
    Ok(text.trim_end().to_owned())
}
