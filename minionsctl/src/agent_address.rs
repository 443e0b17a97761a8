//! Address of an agent that is called without minionsd.

use minions_proto::AgentPort;
use std::fmt;
use std::path::PathBuf;

/// Address of an agent that is called without minionsd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentAddress {
    /// The VM's socket on this host.
    pub(crate) socket: PathBuf,
    /// The agent's port in the guest.
    pub(crate) port: AgentPort,
}

/// Prints the options of minionsctl that select this address.
impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--socket {}", self.socket.display())?;
        if self.port == AgentPort::DEFAULT { Ok(()) } else { write!(f, " --port {}", self.port) }
    }
}
