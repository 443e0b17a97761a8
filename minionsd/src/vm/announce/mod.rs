//! Announcements of agents: the listener that the daemon holds for each VM, next to the VM's own socket.
//!
//! ```text
//!  agent ── CID 2, port 1025 ──▶ VMM ── <vm>.vsock_1025 ──▶ keeper ── at most 3, then 1 in 10 s ─▶ supervisor: a probe
//! ```
//!
//! An announcement is a hint and nothing else: each guest, and each user who may connect to the socket, can send any
//! content. So it only triggers a probe of this VM, at a bounded rate. A VM without the listener works by probes alone.
//!
//! * [`socket_file`]: the socket and its file. [`message`]: one message of a connection.
//!   [`rate`]: the rate of the probes. [`keeper`]: the task that holds the listener.

mod keeper;
mod message;
mod rate;
mod socket_file;

pub(super) use keeper::AnnounceKeeper;

use minions_api::Timestamp;
use minions_proto::announcement::Announcement;

/// Announcement that has arrived.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedAnnouncement {
    pub(crate) at: Timestamp,
    /// Written by the guest.
    pub(crate) announcement: Announcement,
}
