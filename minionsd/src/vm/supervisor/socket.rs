//! A socket that vanishes or changes while its VMM is alive.
//!
//! Cloud Hypervisor removes its socket at each reboot of the guest, and creates it again. The process that listens
//! tells a reboot from another VM of the same name; the kernel reports it to whoever connects.
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

use super::{Hold, Supervisor, Verdict};
use crate::agent::{Listener, Permission};
use crate::vm::discovery::SocketId;
use minions_api::Timestamp;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Time for a VMM that removed its socket to create it again. Cloud Hypervisor took 0.1 s to 1.7 s in an emulated
/// machine; it allocates the guest's memory before.
const ABSENT_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at a VMM whose end no pidfd reports.
const LOOK: Duration = Duration::from_secs(1);

/// Time for a new socket to have a listener that the kernel reports: `bind(2)` comes before `listen(2)`.
const IDENTIFIED_WITHIN: Duration = Duration::from_millis(500);

/// Between two dials to a new socket without a listener.
const RETRY: Duration = Duration::from_millis(50);

/// Whether the socket is there, and is the VM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    There,
    /// The VMM removed it.
    Absent {
        until: Instant,
        look: Instant,
    },
    /// Another socket has the name, and it is not known whose it is.
    Unidentified {
        socket: SocketId,
        until: Instant,
    },
}

impl Presence {
    pub(super) fn is_there(self) -> bool {
        self == Self::There
    }

    pub(super) fn is_absent(self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// What follows from the VMM's end.
    pub(super) fn without_vmm(self) -> Option<Verdict> {
        match self {
            Self::There => None,
            Self::Absent { .. } => Some(Verdict::Gone),
            Self::Unidentified { .. } => Some(Verdict::Replaced),
        }
    }

    /// Waits until there may be news of the socket; forever while it is there.
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

impl Supervisor {
    /// The socket was removed, or another one has the name.
    pub(super) fn socket_changed(&self, hold: &mut Hold) -> Option<Verdict> {
        let socket = *hold.socket.borrow_and_update();
        let now = Instant::now();
        hold.presence = match socket {
            None => Presence::Absent { until: now + ABSENT_LIMIT, look: now + LOOK },
            Some(socket) => Presence::Unidentified { socket, until: now + IDENTIFIED_WITHIN },
        };
        // No call may dial before it is known whose socket it is.
        self.pool.gate().set(Permission::Asked);
        hold.line.hang_up();
        self.pool.flush();
        if hold.vmm.is_none() {
            return hold.presence.without_vmm();
        }
        match socket {
            None => self.change(|status| status.socket_changed(None, Timestamp::now())),
            Some(socket) => {
                self.pool.connector().follow(socket);
                hold.line.probe();
            }
        }
        None
    }

    /// Decides what an absent or unidentified socket means, if that can be known already.
    pub(super) fn look_at_socket(&self, hold: &mut Hold) -> Option<Verdict> {
        let now = Instant::now();
        let vmm = hold.vmm.as_ref().filter(|vmm| vmm.id.is_alive()).map(|vmm| vmm.id.pid);
        match hold.presence {
            Presence::There => None,
            Presence::Absent { until, .. } if vmm.is_none() || now >= until => Some(Verdict::Gone),
            Presence::Absent { until, .. } => {
                hold.presence = Presence::Absent { until, look: now + LOOK };
                None
            }
            Presence::Unidentified { socket, until } => {
                let listener = *hold.listeners.borrow_and_update();
                match listener.filter(|listener| listener.socket == socket) {
                    Some(listener) if vmm.is_some() && listener.pid == vmm => {
                        hold.presence = Presence::There;
                        self.change(|status| status.socket_changed(Some(socket), Timestamp::now()));
                        None
                    }
                    None if now < until => None,
                    Some(_) | None => Some(Verdict::Replaced),
                }
            }
        }
    }

    /// A dial to a socket ended before it was known whose it is.
    pub(super) fn heard_of_unidentified(&self, hold: &mut Hold, now: Instant) -> Option<Verdict> {
        let verdict = self.look_at_socket(hold);
        if hold.presence.is_there() {
            // It was, at the same moment.
            hold.line.hang_up();
        }
        hold.probed_at = now;
        hold.due = self.plan(now, RETRY);
        verdict
    }
}
