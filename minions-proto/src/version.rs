//! What the two ends call themselves.

/// The protocol this crate speaks.
///
/// * 1: the base protocol. An agent that speaks it has no `agent` object in its health reply.
/// * 2: adds the `agent` object, error codes, and the optional fields documented on each message.
pub const PROTOCOL: u32 = 2;

/// The VSOCK port of an agent that was not given another one ([`AgentPort`](crate::AgentPort)).
pub const AGENT_PORT: u32 = crate::AgentPort::DEFAULT.get();

/// The name that `minions-agent` gives itself in its health reply.
pub const AGENT_NAME: &str = "minions-agent";
