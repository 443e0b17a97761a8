//! Presence of a VM's socket, and the verdict that the VM is gone or replaced.
//!
//! ```text
//!            removed                created
//!   there ───────────▶ absent ───────────────▶ unidentified ──same VMM──▶ there: the guest reboots
//!     │                  │                        ▲    │
//!     │                  └─ VMM ends, or limit    │    └─ another process, or no listener ──▶ replaced
//!     │                           ▼               │
//!     │                          gone             │
//!     └──────────── changed ──────────────────────┘
//! ```

use crate::agent::{CallAccess, Listener, Permission, SocketId};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Interval between checks of a VMM whose end no pidfd reports.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Reason why a supervisor ended without being told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The VM is gone.
    Gone,
    /// Another VM has the VM's name.
    Replaced,
}

/// SocketPresence of the VM's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketPresence {
    /// Socket that exists and belongs to the known VMM.
    There,
    /// Socket that the VMM removed.
    Absent { until: Instant, look: Instant },
    /// New socket whose process is not known yet.
    Unidentified { socket: SocketId, until: Instant },
}

/// Result of a check of a socket that is absent or unidentified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PresenceCheck {
    /// Nothing is decided: this is the presence until the next check.
    Undecided(SocketPresence),
    /// The known VMM listens on this socket: the guest reboots.
    Identified(SocketId),
    /// The VM is gone or replaced.
    Ended(Verdict),
}

impl SocketPresence {
    pub(super) fn is_there(self) -> bool {
        self == Self::There
    }

    pub(super) fn is_absent(self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// Returns the verdict if the VMM has ended.
    pub(super) fn without_vmm(self) -> Option<Verdict> {
        match self {
            Self::There => None,
            Self::Absent { .. } => Some(Verdict::Gone),
            Self::Unidentified { .. } => Some(Verdict::Replaced),
        }
    }

    /// Returns the permission for calls. `probed` returns that of the probes' connection, which counts only while the
    /// socket is there: no call may dial a socket whose process is not known.
    pub(super) fn permission(
        self,
        access: CallAccess,
        probed: impl FnOnce() -> Permission,
    ) -> Permission {
        match access {
            CallAccess::Refused(reason) => Permission::Refused(reason),
            CallAccess::Undecided | CallAccess::Allowed if self.is_there() => probed(),
            CallAccess::Undecided | CallAccess::Allowed => Permission::Asked,
        }
    }

    /// Checks the socket at `now`. `vmm` is the pid of the known VMM if it still runs, `listener` the last listener that
    /// the kernel reported.
    pub(super) fn check(
        self,
        vmm: Option<u32>,
        listener: Option<Listener>,
        now: Instant,
    ) -> PresenceCheck {
        match self {
            Self::There => PresenceCheck::Undecided(self),
            Self::Absent { until, .. } if vmm.is_none() || now >= until => {
                PresenceCheck::Ended(Verdict::Gone)
            }
            Self::Absent { until, .. } => {
                PresenceCheck::Undecided(Self::Absent { until, look: now + LOOK })
            }
            Self::Unidentified { socket, until } => {
                match listener.filter(|listener| listener.socket == socket) {
                    Some(listener) if vmm.is_some() && listener.pid == vmm => {
                        PresenceCheck::Identified(socket)
                    }
                    None if now < until => PresenceCheck::Undecided(self),
                    Some(_) | None => PresenceCheck::Ended(Verdict::Replaced),
                }
            }
        }
    }

    /// Waits until the socket must be checked again; forever while it is present.
    ///
    /// Cancel safe.
    pub(super) async fn news(self, listeners: &mut watch::Receiver<Option<Listener>>) {
        match self {
            Self::There => std::future::pending().await,
            Self::Absent { until, look } => sleep_until(until.min(look)).await,
            Self::Unidentified { until, .. } => tokio::select! {
                // The sender lives as long as the pool.
                _ = listeners.changed() => {}
                () = sleep_until(until) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::RefusalReason;
    use PresenceCheck::{Ended, Identified, Undecided};

    const VMM: Option<u32> = Some(7);

    #[test]
    fn an_absent_socket_ends_the_vm_with_its_vmm_or_after_the_limit() {
        let now = Instant::now();
        let [until, later] = [30, 31].map(|seconds| now + Duration::from_secs(seconds));
        let absent = SocketPresence::Absent { until, look: now };
        let again = SocketPresence::Absent { until, look: now + LOOK };
        assert_eq!(absent.check(VMM, None, now), Undecided(again));
        for (vmm, at) in [(None, now), (VMM, until), (VMM, later)] {
            assert_eq!(absent.check(vmm, None, at), Ended(Verdict::Gone), "{vmm:?}");
        }
    }

    #[test]
    fn a_new_socket_is_that_of_a_reboot_only_if_the_known_vmm_listens_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let other = SocketId::at(dir.path()).unwrap();
        let socket = SocketId::default();
        let now = Instant::now();
        let until = now + Duration::from_millis(500);
        let new = SocketPresence::Unidentified { socket, until };
        let listener = |socket, pid| Some(Listener { socket, pid });
        for (vmm, listener, at, expected) in [
            (VMM, listener(socket, VMM), now, Identified(socket)),
            (VMM, listener(socket, VMM), until, Identified(socket)),
            (VMM, listener(socket, Some(8)), now, Ended(Verdict::Replaced)),
            (VMM, listener(socket, None), now, Ended(Verdict::Replaced)),
            (None, listener(socket, None), now, Ended(Verdict::Replaced)),
            (VMM, listener(other, VMM), now, Undecided(new)),
            (VMM, None, now, Undecided(new)),
            (VMM, None, until, Ended(Verdict::Replaced)),
            (VMM, listener(other, VMM), until, Ended(Verdict::Replaced)),
        ] {
            assert_eq!(new.check(vmm, listener, at), expected, "{vmm:?}, {listener:?}");
        }
    }

    #[test]
    fn calls_may_dial_only_a_socket_whose_process_is_known() {
        let now = Instant::now();
        let there = SocketPresence::There;
        let absent = SocketPresence::Absent { until: now, look: now };
        let new = SocketPresence::Unidentified { socket: SocketId::default(), until: now };
        for access in [CallAccess::Allowed, CallAccess::Undecided] {
            let permission =
                |presence: SocketPresence| presence.permission(access.clone(), || Permission::Open);
            assert!(matches!(permission(there), Permission::Open));
            assert!(matches!(permission(absent), Permission::Asked));
            assert!(matches!(permission(new), Permission::Asked));
        }
        let refused = CallAccess::Refused(RefusalReason::vanished());
        let permission = there.permission(refused, || Permission::Open);
        assert!(matches!(permission, Permission::Refused(_)), "{permission:?}");
    }
}
