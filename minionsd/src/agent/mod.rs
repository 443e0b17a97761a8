//! The way to one agent: dial it, keep connections to it, call it.
//!
//! * [`connector`]: a new, handshaked connection, and which layer failed if there is none.
//! * [`pool`]: idle connections, who may use one, and when one is too suspect to be used.
//! * [`client`]: one call, with its deadline and its at most one retry.

pub(crate) mod client;
pub(crate) mod connector;
pub(crate) mod pool;

pub(crate) use client::{AgentClient, CallError};
pub(crate) use connector::{AgentConnection, ConnectError, Connector, Dials};
pub(crate) use pool::{Lane, Pool};
