//! A stream to an exec: messages both ways, over a WebSocket or the agent's socket.
//!
//! * [`exec_link`]: the open stream. [`websocket`], [`agent`]: the two ways to open it.

mod agent;
mod exec_link;
mod websocket;

pub(crate) use exec_link::{ExecLink, FirstMessage};

use crate::failure::Failure;
use crate::target::Target;
use minions_proto::message::ExecAttached;

/// Opens a stream.
pub(crate) async fn open(
    target: &Target,
    opening: &FirstMessage,
) -> Result<(ExecAttached, ExecLink), Failure> {
    match target {
        Target::Vm(client, vm) => websocket::open(client, vm, opening).await,
        Target::Agent(address) => agent::open(address, opening).await,
    }
}
