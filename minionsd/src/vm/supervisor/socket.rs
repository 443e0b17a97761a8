//! Sockets that vanish or change while their VMM runs.
//!
//! Cloud Hypervisor removes its socket at each reboot of the guest, and creates it again. The listening
//! process distinguishes a reboot from another VM of the same name; the kernel reports it to each client.

use super::presence::{LOOK, PresenceCheck, SocketPresence, Verdict};
use super::{Supervisor, SupervisorState};
use crate::agent::Permission;
use minions_api::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// Time for a VMM that removed its socket to create it again. Cloud Hypervisor took 0.1 s to 1.7 s in an emulated
/// machine; it allocates the guest's memory first.
const ABSENT_LIMIT: Duration = Duration::from_secs(30);

/// Time for a new socket to have a listener that the kernel reports: `bind(2)` comes before `listen(2)`.
const IDENTIFIED_WITHIN: Duration = Duration::from_millis(500);

/// Pause between two dials to a new socket without a listener.
const RETRY: Duration = Duration::from_millis(50);

impl Supervisor {
    /// Handles a socket that was removed or replaced.
    pub(super) fn socket_changed(&self, hold: &mut SupervisorState) -> Option<Verdict> {
        let socket = *hold.socket.borrow_and_update();
        let now = Instant::now();
        hold.presence = match socket {
            None => SocketPresence::Absent { until: now + ABSENT_LIMIT, look: now + LOOK },
            Some(socket) => SocketPresence::Unidentified { socket, until: now + IDENTIFIED_WITHIN },
        };
        // No call may dial before the process of the socket is known.
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

    /// Decides whether an absent or unidentified socket means a reboot, the end of the VM or another VM. Returns
    /// `None` while that is undecided.
    pub(super) fn look_at_socket(&self, hold: &mut SupervisorState) -> Option<Verdict> {
        let now = Instant::now();
        let vmm = hold.vmm.as_ref().filter(|vmm| vmm.id.is_alive()).map(|vmm| vmm.id.pid);
        let listener = match hold.presence {
            SocketPresence::Unidentified { .. } => *hold.listeners.borrow_and_update(),
            SocketPresence::There | SocketPresence::Absent { .. } => None,
        };
        match hold.presence.check(vmm, listener, now) {
            PresenceCheck::Undecided(presence) => hold.presence = presence,
            PresenceCheck::Identified(socket) => {
                hold.presence = SocketPresence::There;
                self.change(|status| status.socket_changed(Some(socket), Timestamp::now()));
            }
            PresenceCheck::Ended(verdict) => return Some(verdict),
        }
        None
    }

    /// Handles the end of a dial to a socket whose process is not known yet.
    pub(super) fn heard_of_unidentified(
        &self,
        hold: &mut SupervisorState,
        now: Instant,
    ) -> Option<Verdict> {
        let verdict = self.look_at_socket(hold);
        if hold.presence.is_there() {
            // The process became known at the same moment.
            hold.line.hang_up();
        }
        hold.probed_at = now;
        hold.due = self.plan(now, RETRY);
        verdict
    }
}
