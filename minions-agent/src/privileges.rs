//! Drops the root privileges that the agent never needs.
//!
//! An agent that runs programs or writes files needs all of them. An agent that is allowed neither keeps
//! the privileges that its requests need and drops the others permanently, before it starts a second
//! thread (capabilities belong to a thread) and before it accepts a connection.

use crate::capability::{Capabilities, Capability};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Failure to drop privileges.
#[derive(Debug, thiserror::Error)]
#[error("failed to drop the privileges that --allow makes unnecessary")]
pub struct PrivilegeError(#[from] Errno);

/// Drops the privileges that requests of these kinds do not need. Must be called while the process has only
/// one thread.
///
/// # Errors
///
/// [`PrivilegeError`] if the kernel refuses.
pub fn keep_for(capabilities: Capabilities) -> Result<(), PrivilegeError> {
    let Some(needed) = needed(capabilities) else { return Ok(()) };
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    for needless in CapabilitySet::all().difference(needed) {
        match remove_capability_from_bounding_set(needless) {
            // Unknown to this kernel, or the agent is not root and has none to drop.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let have = rustix::thread::capabilities(None)?;
    let left = have.permitted.intersection(needed);
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: none })?;
    Ok(())
}

/// Returns the kernel capabilities (capabilities(7)) that these requests need; `None` for all of them.
fn needed(capabilities: Capabilities) -> Option<CapabilitySet> {
    let of = |capability| match capability {
        // Hooks are programs of the guest's owner.
        Capability::Exec | Capability::WriteFile | Capability::Files | Capability::Quiesce => None,
        Capability::Health | Capability::Status => Some(CapabilitySet::empty()),
        // Links, addresses and routes; ARP; the hostname.
        Capability::Network => {
            Some(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::SYS_ADMIN)
        }
        Capability::Clock => Some(CapabilitySet::SYS_TIME),
        // Unix sockets of other users; listening sockets that belong to them; ports below 1024.
        Capability::Forward => Some(
            CapabilitySet::DAC_OVERRIDE
                | CapabilitySet::CHOWN
                | CapabilitySet::SETUID
                | CapabilitySet::SETGID
                | CapabilitySet::NET_BIND_SERVICE,
        ),
        Capability::Power => Some(CapabilitySet::SYS_BOOT | CapabilitySet::KILL),
    };
    let mut all = CapabilitySet::empty();
    for capability in Capability::ALL.into_iter().filter(|one| capabilities.contain(*one)) {
        all |= of(capability)?;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &str) -> Option<CapabilitySet> {
        needed(list.parse().unwrap())
    }

    #[test]
    fn only_privileges_of_allowed_requests_are_needed() {
        assert_eq!(of("health,status"), Some(CapabilitySet::empty()));
        assert_eq!(of("health,clock"), Some(CapabilitySet::SYS_TIME));
        assert_eq!(of("health,exec"), None);
        assert_eq!(needed(Capabilities::all()), None);
    }
}
