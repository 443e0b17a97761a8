//! The wire between a host and the agent in a guest.
//!
//! Everything that both ends must agree on lives here, and nothing else: `minionsd` and
//! `minionsctl` speak it from the host, `minions-agent` from inside the VM. The bytes are drawn in
//! `docs/PROTOCOL.md`; agents and host tools that speak the base protocol are in the field, so
//! this crate only ever grows by addition.
//!
//! # Layout
//!
//! * [`version`]: protocol number, agent port, the agent's name. [`port`]: ports that an agent can have.
//! * [`stranger`]: services that are not agents, recognised by their first bytes.
//! * [`frame`]: bytes. A length-prefixed frame, its bounds, and an incremental decoder.
//! * [`json`]: JSON from a peer, with a bound on its depth.
//! * [`message`]: meaning. Requests, replies, the error reply.
//! * [`channel`]: channel mode, which a stream's connection is in behind its reply.
//! * [`empty_messages`]: rate limit for messages of an agent that carry nothing.
//! * [`exec_client`]: the host's half of a stream to an exec: offsets, acks, what to keep.
//! * [`collect`]: a stream's beginning and end within a budget, as text for a reply.
//! * [`cidr`]: the address rules that both ends apply to a network configuration.
//! * [`name_server`]: addresses of name servers, link-local ones with their zone.
//! * [`names`]: the same for hostnames, domains, interfaces and MACs.
//! * [`error`]: an invalid field, the error reply, its stable codes.
//! * [`handshake`]: `CONNECT <port>` / `OK <n>`, which the VMM speaks before the first frame.
//! * [`hybrid`] (feature `tokio`): dial a VM's Unix socket and shake hands.
//! * [`connection`] (feature `tokio`): one stream, one request and its reply at a time.

pub mod channel;
pub mod cidr;
pub mod collect;
#[cfg(feature = "tokio")]
pub mod connection;
pub mod empty_messages;
pub mod error;
pub mod exec_client;
pub mod frame;
pub mod handshake;
#[cfg(feature = "tokio")]
pub mod hybrid;
pub mod json;
pub mod message;
pub mod name_server;
pub mod names;
pub mod port;
pub mod stranger;
pub mod version;

pub use error::{AgentError, ErrorCode, Invalid};
pub use message::{Call, Request};
pub use port::AgentPort;
