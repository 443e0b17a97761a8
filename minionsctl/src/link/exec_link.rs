//! Open stream to an exec.
//!
//! ```text
//!             ┌── reader task ──▶ incoming ──▶┐
//!  connection │                               │ session
//!             └◀── writer task ◀── outgoing ◀─┘
//! ```
//!
//! The two tasks keep either direction from waiting for the other. Both queues are short: messages that are
//! not taken stay in the socket, which is the backpressure.

use crate::link_error::LinkError;
use minions_api::exec::{AttachRequest, ExecRequest};
use minions_proto::channel::{ChannelMessage, HostControl};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Capacity of each queue, in messages.
pub(super) const QUEUE: usize = 4;

/// Deadline for sending [`HostControl::Leave`] and for the peer to close the stream.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);

/// Deadline from the request to the agent's reply. Long enough for a guest that swaps.
pub(super) const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// First message of a stream.
#[derive(Debug, Clone)]
pub(crate) enum FirstMessage {
    /// Start a program, or attach to it if its id exists already.
    Start(Box<ExecRequest>),
    /// Attach to an existing program.
    Attach(AttachRequest),
}

/// Open stream. Dropping it closes the connection without [`HostControl::Leave`].
#[derive(Debug)]
pub(crate) struct ExecLink {
    pub(super) incoming: mpsc::Receiver<Result<ChannelMessage, LinkError>>,
    pub(super) outgoing: mpsc::Sender<ChannelMessage>,
    pub(super) tasks: JoinSet<()>,
}

impl ExecLink {
    /// Waits for the next message. Cancel safe.
    pub(crate) async fn receive(&mut self) -> Result<ChannelMessage, LinkError> {
        self.incoming.recv().await.unwrap_or_else(|| Err(LinkError::ended()))
    }

    /// Returns the next message if it has arrived already.
    pub(crate) fn received(&mut self) -> Option<Result<ChannelMessage, LinkError>> {
        self.incoming.try_recv().ok()
    }

    /// Returns a sender for messages to the peer. Drop it before [`leave`](Self::leave). It is closed if the
    /// connection is broken; [`receive`](Self::receive) returns the reason.
    pub(crate) fn outgoing(&self) -> mpsc::Sender<ChannelMessage> {
        self.outgoing.clone()
    }

    /// Leaves the program, and waits briefly until the peer has closed the stream.
    pub(crate) async fn leave(self) {
        let Self { mut incoming, outgoing, tasks: _tasks } = self;
        // Closing a socket with unread data resets the connection, which could discard the Leave.
        let drain = async { while incoming.recv().await.is_some_and(|message| message.is_ok()) {} };
        let send = async {
            let _ = outgoing.send(ChannelMessage::host(&HostControl::Leave)).await;
            drop(outgoing);
        };
        let _ = timeout(LEAVE_DEADLINE, async { tokio::join!(send, drain) }).await;
    }
}
