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

use crate::agent::{Listener, SocketId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

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
