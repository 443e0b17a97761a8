//! The way to one agent: dial it, keep connections to it, call it.
//!
//! * [`connector`]: a new, handshaked connection, and which layer failed if there is none.
//! * [`gate`]: when a call may dial.
//! * [`pool`]: idle connections, who may use one, and when one is too suspect to be used.
//!   [`checkout`]: a connection for the length of one call.
//! * [`socket`]: a connection with what it costs, and how much a guest may make us keep.
//! * [`calls`]: how the calls fare, for the supervisor.
//! * [`client`]: one call, with its deadline and its at most one retry.
//! * [`error`]: failures of a call: of the transport, or a refusal by the agent.
//! * [`health`]: the call that is made most often.
//! * [`open`]: the call that opens a stream, and which agent it is that answers.
//! * [`stream`]: what that connection carries from then on. [`pace`]: the rate that all streams of a VM share.
//!   [`turns`]: how many of them work at the same time.

#[cfg(feature = "bench")]
pub mod benching;
pub(crate) mod calls;
#[cfg(test)]
mod cancelled;
mod checkout;
pub(crate) mod client;
pub(crate) mod connector;
mod error;
pub(crate) mod gate;
mod health;
pub(crate) mod open;
pub(crate) mod pace;
pub(crate) mod pool;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod turns;
#[cfg(test)]
mod unanswered;

pub(crate) use calls::Calls;
pub(crate) use client::AgentClient;
pub(crate) use connector::{
    AgentConnection, ConnectError, Connector, Dials, Listener, PendingDial,
};
pub(crate) use error::{AgentRefusal, CallError, MissingFeature, TransportError};
pub(crate) use gate::Permission;
pub(crate) use open::{ExecSupport, Instance, OpenError};
pub(crate) use pool::{Lane, Pool};
pub(crate) use stream::{AgentStream, Broken};
pub(crate) use turns::StreamTurns;
