//! Communication with one agent: dialling it, keeping connections to it, calling it.
//!
//! * [`vm_socket`]: the socket to dial, and its identity.
//! * [`connector`]: dials new connections, and reports the layer at which a dial failed.
//! * [`gate`]: decides whether a call may dial.
//! * [`pool`]: limits the calls, and gives each a connection. [`pooled`]: the connections that no call uses.
//!   [`accept_rate`]: rate of the connections of listeners in the guest.
//!   [`checkout`]: a connection for the duration of one call. [`checkout_error`]: failures to get one.
//! * [`socket`]: a connection with its descriptor, and a limit on the memory that a reply may take.
//! * [`calls`]: counts failed calls for the supervisor.
//! * [`status`]: decision whether calls are sent, and what the agent announced.
//! * [`client`]: makes a call, with a deadline and at most one retry.
//! * [`error`]: failures of a call, either of the transport or as a refusal by the agent.
//! * [`health`]: the health check.
//! * [`open`]: opens a stream, if required only to a given instance of the agent. [`precondition`]: the check of the
//!   instance or incarnation at the other end of a connection.
//! * [`stream`]: reads and writes the messages of an open stream. [`pace`]: the processing rate that all streams
//!   of a VM share. [`turns`]: limits how many of them work at the same time.

mod accept_rate;
#[cfg(feature = "bench")]
pub mod benching;
pub(crate) mod calls;
#[cfg(test)]
mod cancelled;
mod checkout;
mod checkout_error;
pub(crate) mod client;
pub(crate) mod connector;
mod error;
pub(crate) mod gate;
mod health;
pub(crate) mod open;
pub(crate) mod pace;
pub(crate) mod pool;
mod pooled;
mod precondition;
pub(crate) mod socket;
mod status;
pub(crate) mod stream;
pub(crate) mod turns;
#[cfg(test)]
mod unanswered;
mod vm_socket;

pub(crate) use calls::CallOutcomes;
pub(crate) use client::AgentClient;
pub(crate) use connector::{
    AgentConnection, ConnectError, Connector, Dials, Listener, PendingDial,
};
pub(crate) use error::{AgentRefusal, CallError, MissingFeature, TransportError};
pub(crate) use gate::Permission;
pub(crate) use open::{ExecSupport, OpenError};
pub(crate) use pool::{Lane, Pool};
pub(crate) use precondition::{AgentInstance, IncarnationId};
pub(crate) use status::{AgentStatus, CallAccess, RefusalReason};
pub(crate) use stream::{AgentStream, StreamEnd};
pub(crate) use turns::StreamTurns;
pub(crate) use vm_socket::{SocketId, VmSocket};
