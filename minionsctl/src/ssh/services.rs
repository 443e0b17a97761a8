//! Services of SSH in addition to programs and connections, and which of them this server offers.

/// Service that a client requests in addition to programs and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestedService {
    /// A subsystem, such as `sftp`.
    Subsystem,
    /// A listener on a TCP port (`ssh -R`).
    TcpListener,
    /// A listener on a Unix socket (`ssh -R`).
    UnixListener,
    /// The client's agent for keys (`ssh -A`).
    AgentForwarding,
    /// The client's X server (`ssh -X`).
    X11Forwarding,
}

impl RequestedService {
    /// Reports whether the server offers the service. The client receives a failure for the others.
    pub(super) fn is_offered(self) -> bool {
        match self {
            // A file needs a stream of files, which no exec stream replaces.
            Self::Subsystem => false,
            // A listener, also that of a forwarded agent or display, needs one in the guest.
            Self::TcpListener
            | Self::UnixListener
            | Self::AgentForwarding
            | Self::X11Forwarding => false,
        }
    }
}
