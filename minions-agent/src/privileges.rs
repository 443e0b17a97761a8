//! What root may do here that the agent will never need.
//!
//! Whoever may run programs or write any file needs all of it. An agent that was started without both
//! keeps what its requests need and gives the rest away for good, before it has a second thread and
//! before it hears anybody: capabilities are a thread's own.

use crate::capability::{Capabilities, Capability};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Why privileges could not be given away.
#[derive(Debug, thiserror::Error)]
#[error("privileges that --allow makes needless can't be given away")]
pub struct PrivilegeError(#[from] Errno);

/// Gives away what requests of these kinds don't need. To be called by the only thread.
///
/// # Errors
///
/// [`PrivilegeError`] if the kernel doesn't let us.
pub fn keep_for(capabilities: Capabilities) -> Result<(), PrivilegeError> {
    let Some(needed) = needed(capabilities) else { return Ok(()) };
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    for needless in CapabilitySet::all().difference(needed) {
        match remove_capability_from_bounding_set(needless) {
            // One that this kernel doesn't know, or an agent that isn't root and has none to lose.
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

/// The kernel's capabilities (capabilities(7)) behind these requests; `None` for all there are.
fn needed(capabilities: Capabilities) -> Option<CapabilitySet> {
    let of = |capability| match capability {
        Capability::Exec | Capability::WriteFile => None,
        Capability::Health | Capability::Status => Some(CapabilitySet::empty()),
        // Links, addresses and routes; ARP; the hostname.
        Capability::Network => {
            Some(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::SYS_ADMIN)
        }
        Capability::Clock => Some(CapabilitySet::SYS_TIME),
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
    fn only_what_is_allowed_is_needed() {
        assert_eq!(of("health,status"), Some(CapabilitySet::empty()));
        assert_eq!(of("health,clock"), Some(CapabilitySet::SYS_TIME));
        assert_eq!(of("health,exec"), None);
        assert_eq!(needed(Capabilities::all()), None);
    }
}
