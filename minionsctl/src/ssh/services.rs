//! SSH services in addition to programs and connections, and the decision which of them this server offers.

/// Service in addition to programs and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestedService {
    /// A listener on a TCP port (`ssh -R`).
    TcpListener,
    /// A listener on a Unix socket (`ssh -R`).
    UnixListener,
    /// The client's SSH agent (`ssh -A`).
    AgentForwarding,
    /// The client's X server (`ssh -X`).
    X11Forwarding,
}

impl RequestedService {
    /// Reports whether the server offers the service. Requests for the others are answered with a failure.
    pub(super) fn is_offered(self) -> bool {
        match self {
            // These, also the forwarding of an agent or a display, need a listener in the guest.
            Self::TcpListener
            | Self::UnixListener
            | Self::AgentForwarding
            | Self::X11Forwarding => false,
        }
    }
}
