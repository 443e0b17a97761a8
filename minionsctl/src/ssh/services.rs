//! SSH services in addition to programs, files, connections and listeners, and the decision which of them this server
//! offers.

/// Service in addition to programs, files, connections and listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestedService {
    /// The client's X server (`ssh -X`).
    X11Forwarding,
}

impl RequestedService {
    /// Reports whether the server offers the service. Requests for the others are answered with a failure.
    pub(super) fn is_offered(self) -> bool {
        match self {
            // The forwarding of a display needs an authority file in the guest, which xauth(1) writes.
            Self::X11Forwarding => false,
        }
    }
}
