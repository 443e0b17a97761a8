//! Which boot of the guest, and which start of the agent, this is.
//!
//! A host that comes back to a name finds out with these two whether it is still talking to what
//! it talked to before.

use std::fs;
use std::io;

/// Read once, at start: neither changes while the agent lives.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The kernel's: changes with every boot.
    pub(crate) boot_id: String,
    /// Ours: changes with every start of the agent.
    pub(crate) instance_id: String,
}

/// A file of the kernel's that an agent can't start without.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path} (is /proc mounted?)")]
pub struct IdentityError {
    path: &'static str,
    source: io::Error,
}

impl Identity {
    /// Reads the kernel's boot id and mints an instance id.
    pub(crate) fn mint() -> Result<Self, IdentityError> {
        Ok(Self {
            boot_id: read("/proc/sys/kernel/random/boot_id")?,
            // Every read of this file is a new random UUID.
            instance_id: read("/proc/sys/kernel/random/uuid")?,
        })
    }
}

fn read(path: &'static str) -> Result<String, IdentityError> {
    let text = fs::read_to_string(path).map_err(|source| IdentityError { path, source })?;
    Ok(text.trim_end().to_owned())
}
