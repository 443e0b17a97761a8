//! A stream to an exec: messages both ways, whoever carries them.
//!
//! ```text
//!             ┌── reader task ──▶ incoming ──▶┐
//!  connection │                               │ whoever drives the exec
//!             └◀── writer task ◀── outgoing ◀─┘
//! ```
//!
//! Two tasks, so that neither direction waits for the other. Both queues are short: what isn't taken
//! stays in the socket, and that is the backpressure.

mod agent;
mod websocket;

use crate::failure::Failure;
use crate::target::Target;
use minions_api::exec::{AttachRequest, ExecRequest};
use minions_proto::channel::{ChannelError, HostControl, Message};
use minions_proto::frame::FrameError;
use minions_proto::message::ExecAttached;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;

/// Messages in each queue.
const QUEUE: usize = 4;

/// For a farewell to arrive.
const FAREWELL: Duration = Duration::from_secs(2);

/// From the request to the agent's reply. Also a guest that swaps answers by then.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// How a stream begins.
#[derive(Debug, Clone)]
pub(crate) enum Opening {
    /// Run this; or, if its id is known already, go on with it.
    Start(Box<ExecRequest>),
    /// Come back to this.
    Attach(AttachRequest),
}

/// Why a stream is over before the program is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The WebSocket was closed, in form.
    #[error("minionsd closed the stream ({code}{})", if .reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Closed {
        /// RFC 6455, section 7.4.
        code: u16,
        /// For people.
        reason: String,
    },
    /// The connection ended or broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// No heartbeat.
    #[error("nothing was heard for too long")]
    Silent,
    /// Not the WebSocket protocol.
    #[error("the peer broke the WebSocket protocol")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// Not a channel message.
    #[error("the peer broke the protocol")]
    Channel(#[from] ChannelError),
    /// Not a frame.
    #[error("the peer broke the protocol")]
    Frame(#[from] FrameError),
}

impl LinkError {
    /// Whether another connection may do better.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // Normal without an exit, going away, internal error, service restart, try again later.
            Self::Closed { code, .. } => matches!(code, 1000 | 1001 | 1005 | 1006 | 1011..=1013),
            Self::Broken(_) | Self::Silent => true,
            Self::WebSocket(_) | Self::Channel(_) | Self::Frame(_) => false,
        }
    }

    fn ended() -> Self {
        Self::Broken(io::ErrorKind::UnexpectedEof.into())
    }
}

/// An open stream. Dropping it breaks the connection without a farewell.
#[derive(Debug)]
pub(crate) struct Link {
    incoming: mpsc::Receiver<Result<Message, LinkError>>,
    outgoing: mpsc::Sender<Message>,
    _tasks: JoinSet<()>,
}

/// Opens a stream.
pub(crate) async fn open(
    target: &Target,
    opening: &Opening,
) -> Result<(ExecAttached, Link), Failure> {
    match target {
        Target::Vm(client, vm) => websocket::open(client, vm, opening).await,
        Target::Agent(address) => agent::open(address, opening).await,
    }
}

impl Link {
    /// Waits for a message. Cancel safe.
    pub(crate) async fn receive(&mut self) -> Result<Message, LinkError> {
        self.incoming.recv().await.unwrap_or_else(|| Err(LinkError::ended()))
    }

    /// A message that is here already.
    pub(crate) fn received(&mut self) -> Option<Result<Message, LinkError>> {
        self.incoming.try_recv().ok()
    }

    /// Where messages go. To be dropped before [`leave`](Self::leave). It is closed if the connection
    /// is broken; [`receive`](Self::receive) says how.
    pub(crate) fn outgoing(&self) -> mpsc::Sender<Message> {
        self.outgoing.clone()
    }

    /// Goes for good, and waits for a moment until the other side has noticed.
    pub(crate) async fn leave(self) {
        let Self { mut incoming, outgoing, _tasks } = self;
        // Without reading on, what is on its way here could reset the connection on the way there.
        let drain = async { while incoming.recv().await.is_some_and(|message| message.is_ok()) {} };
        let say = async {
            let _ = outgoing.send(Message::host(&HostControl::Leave)).await;
            drop(outgoing);
        };
        let _ = timeout(FAREWELL, async { tokio::join!(say, drain) }).await;
    }
}
