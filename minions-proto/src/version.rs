//! Protocol version, port and name of the agent.

/// Protocol version of this crate.
///
/// * 1: the base protocol. Its agents have no `agent` object in the health reply.
/// * 2: adds the `agent` object, error codes, and the optional fields documented on each message.
pub const PROTOCOL: u32 = 2;

/// Default VSOCK port of the agent ([`AgentPort`](crate::AgentPort)). Unprivileged; in a guest with systemd, a socket
/// unit holds it.
pub const AGENT_PORT: u32 = crate::port::AgentPort::DEFAULT.get();

/// Name of `minions-agent` in its health reply.
pub const AGENT_NAME: &str = "minions-agent";
