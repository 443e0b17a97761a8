//! A program that somebody holds.

use super::{Execs, Place, opening};
use crate::agent::AgentStream;
use minions_proto::channel::{ChannelMessage, HostControl};
use minions_proto::message::{ExecAttach, ExecId, Role};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// To come back for the sake of a farewell, if the connection was just broken.
const COME_BACK: Duration = Duration::from_secs(5);

/// For the agent to close after `leave`. A VMM may drop what has not arrived when we close first.
const GOODBYE: Duration = Duration::from_secs(2);

/// The right to say what becomes of a program. Whoever drops it leaves: the agent is told so at once,
/// and `on_disconnect` decides. Not while the daemon itself ends: then the stream just breaks, and
/// the program waits for somebody to come back.
#[derive(Debug)]
pub(super) struct Hold {
    execs: Execs,
    place: Place,
    id: ExecId,
    /// `None` before the first, and between two.
    pub(super) stream: Option<AgentStream>,
    held: bool,
}

impl Hold {
    /// Held from before the program is started: whoever goes away in between leaves too.
    pub(super) fn of(execs: Execs, place: Place, id: ExecId) -> Self {
        Self { execs, place, id, stream: None, held: true }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// There is nothing to leave (any more): it ended, never began, or belongs to somebody else.
    pub(super) fn release(&mut self) {
        self.held = false;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.held || self.execs.draining.is_cancelled() {
            return;
        }
        let (place, id, stream) = (self.place.clone(), self.id.clone(), self.stream.take());
        self.execs.tasks.spawn(async move {
            match stream {
                Some(stream) => leave(stream).await,
                None => come_back_and_leave(&place, id).await,
            }
        });
    }
}

/// Sends `leave` and reads to the stream's end. Takes at most [`GOODBYE`].
pub(crate) async fn leave(mut stream: AgentStream) {
    stream.writer.queue(&ChannelMessage::host(&HostControl::Leave));
    close_after_leave(stream).await;
}

/// Reads a stream to its end after `leave` was queued on it. Takes at most [`GOODBYE`].
///
/// A stream that is closed with unread output resets the connection, and the agent may then never read the
/// `leave`: the program would run on for the agent's grace period.
pub(crate) async fn close_after_leave(mut stream: AgentStream) {
    // Best effort: without the `leave`, the agent's grace period has the same result.
    let _ = timeout(GOODBYE, async {
        if stream.writer.flush().await.is_ok() {
            while stream.reader.next().await.is_ok() {}
        }
    })
    .await;
}

/// The request may have been on its way, or the connection broken. Another agent may know the id too,
/// and then it isn't ours to leave.
async fn come_back_and_leave(place: &Place, id: ExecId) {
    let attach = ExecAttach { id, stdout: None, stderr: None, role: Role::Control };
    if let Ok((_, stream)) = opening::once_more(place, &attach, Instant::now() + COME_BACK).await {
        leave(stream).await;
    }
}
