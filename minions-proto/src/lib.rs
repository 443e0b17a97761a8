//! Wire protocol between a host and the agent in a guest.
//!
//! This crate contains everything that both ends must agree on, and nothing else. `minionsd` and
//! `minionsctl` use it on the host, `minions-agent` inside the VM. `docs/PROTOCOL.md` draws the
//! bytes. Agents and host tools that speak the base protocol are in the field, so this crate only
//! adds.
//!
//! # Layout
//!
//! * [`version`]: protocol number, default agent port, the agent's name. [`port`]: valid agent ports.
//! * [`foreign_service`]: services that are not agents, recognised by their first bytes.
//! * [`frame`]: bytes. A length-prefixed frame, its bounds, and an incremental decoder.
//! * [`json`]: JSON from a peer, with a limit on its depth.
//! * [`message`]: meaning. Requests, replies, the error reply.
//! * [`announcement`]: what an agent sends to its host once it listens.
//! * [`channel`]: channel mode, which a connection enters after the reply that opens a stream.
//! * [`empty_messages`]: rate limit for messages of an agent that carry nothing.
//! * [`exec_client`]: host side of a stream to an exec: offsets, acks, input to keep.
//! * [`file_stream`]: header line, data and failure lines of a file operation.
//! * [`file_session`]: frames, requests and answers of a file session.
//! * [`forward`]: messages of a connection to a port or socket in the guest.
//! * [`forward_client`]: host side of a forward: half-close, heartbeats, the last message.
//! * [`forward_listener`]: messages of a listening socket in the guest, and the host side of them.
//! * [`collect`]: beginning and end of a stream within a budget, as text for a reply.
//! * [`cidr`]: rules for addresses, which both ends apply to a network configuration.
//! * [`name_server`]: addresses of name servers; link-local ones have a zone.
//! * [`names`]: rules for hostnames, domains, interface names and MAC addresses.
//! * [`error`]: an invalid field, the error reply, and its stable codes.
//! * [`handshake`]: `CONNECT <port>` / `OK <n>`, exchanged with the VMM before the first frame.
//! * [`hybrid`] (feature `tokio`): connects to a VM's Unix socket and performs the handshake.
//! * [`connection`] (feature `tokio`): one connection; one request and its reply at a time.

pub mod announcement;
pub mod channel;
pub mod cidr;
pub mod collect;
#[cfg(feature = "tokio")]
pub mod connection;
pub mod empty_messages;
pub mod error;
pub mod exec_client;
pub mod file_session;
pub mod file_stream;
pub mod foreign_service;
pub mod forward;
pub mod forward_client;
pub mod forward_listener;
pub mod frame;
pub mod handshake;
#[cfg(feature = "tokio")]
pub mod hybrid;
pub mod json;
pub mod message;
pub mod name_server;
pub mod names;
pub mod port;
pub mod version;

pub use error::{AgentError, ErrorCode, Invalid};
pub use message::{Call, Request};
pub use port::AgentPort;
