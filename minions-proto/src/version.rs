//! What the two ends call themselves.

/// The protocol this crate speaks.
///
/// * 1: the base protocol. An agent that speaks it has no `agent` object in its health reply.
/// * 2: adds the `agent` object, error codes, and the optional fields documented on each message.
pub const PROTOCOL: u32 = 2;

/// The VSOCK port on which an agent listens. Not privileged: inside a guest a systemd socket unit
/// holds it.
pub const AGENT_PORT: u32 = 1024;

/// The name that `minions-agent` gives itself in its health reply.
pub const AGENT_NAME: &str = "minions-agent";
