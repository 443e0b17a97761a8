//! The lease of a program. Dropping it sends `leave`.

use super::opening;
use super::resources::ExecResources;
use super::target::ExecTarget;
use crate::agent::AgentStream;
use minions_proto::channel::{AgentControl, Channel, ChannelMessage, HostControl};
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::message::{ExecAttach, ExecId, Role};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Deadline for re-attaching only to send `leave`, if the connection was lost just before.
const COME_BACK: Duration = Duration::from_secs(5);

/// Attempts to leave a program whose start request was in flight.
const ATTEMPTS: usize = 3;

/// Time that the agent has to close the stream after `leave`. A VMM may drop data in flight if the daemon closes first.
const GOODBYE: Duration = Duration::from_secs(2);

/// The lease of a program. On drop, `leave` is sent to the agent at once, and the program's `on_disconnect` decides
/// whether it ends. While the daemon itself stops, no `leave` is sent: the stream just breaks, and the agent waits for
/// the client to re-attach.
#[derive(Debug)]
pub(super) struct ExecLease {
    execs: ExecResources,
    target: ExecTarget,
    id: ExecId,
    /// Current stream; `None` before the first one, and between two.
    pub(super) stream: Option<AgentStream>,
    held: bool,
}

impl ExecLease {
    /// Creates the lease. It must exist before the program is started, so that `leave` is also sent if the caller goes
    /// away during the start.
    pub(super) fn of(execs: ExecResources, target: ExecTarget, id: ExecId) -> Self {
        Self { execs, target, id, stream: None, held: true }
    }

    pub(super) fn target(&self) -> &ExecTarget {
        &self.target
    }

    /// Gives the lease up without `leave`: the program ended, was never started, or was taken over by another client.
    pub(super) fn release(&mut self) {
        self.held = false;
    }
}

impl Drop for ExecLease {
    fn drop(&mut self) {
        if !self.held || self.execs.draining.is_cancelled() {
            return;
        }
        let target = self.target.clone();
        let id = self.id.clone();
        let stream = self.stream.take();
        self.execs.tasks.spawn(async move {
            match stream {
                Some(stream) => leave(stream).await,
                None => come_back_and_leave(&target, id).await,
            }
        });
    }
}

/// Sends `leave` and reads to the stream's end. Takes at most [`GOODBYE`].
pub(crate) async fn leave(mut stream: AgentStream) {
    stream.writer.queue(&ChannelMessage::host(&HostControl::Leave));
    end_of(stream).await;
}

/// End of a stream after `leave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeaveEnd {
    /// The agent closed the stream, or the connection broke.
    Closed,
    /// Another stream attached to the program before, so the `leave` had no effect.
    TakenOver,
}

/// Reads a stream to its end after `leave` was queued on it. Takes at most [`GOODBYE`].
///
/// Closing a stream with unread output resets the connection, and the agent may then never read the `leave`: the
/// program would continue for the agent's grace period.
pub(crate) async fn close_after_leave(stream: AgentStream) {
    end_of(stream).await;
}

async fn end_of(mut stream: AgentStream) -> LeaveEnd {
    let mut end = LeaveEnd::Closed;
    // Best effort: without the `leave`, the agent's grace period has the same result.
    let _ = timeout(GOODBYE, async {
        if stream.writer.flush().await.is_ok() {
            while let Ok(message) = stream.reader.next().await {
                if is_taken_over(&message) {
                    end = LeaveEnd::TakenOver;
                }
                if is_last(&message) {
                    break;
                }
            }
        }
    })
    .await;
    end
}

/// Reports whether the stream ends with this message: an agent that takes requests on the connection does not close it.
fn is_last(message: &ChannelMessage) -> bool {
    let is_control = message.channel == Channel::Control;
    is_taken_over(message)
        || is_control && matches!(message.agent_control(), Ok(AgentControl::Exit(_)))
}

fn is_taken_over(message: &ChannelMessage) -> bool {
    let is_control = message.channel == Channel::Control;
    is_control
        && matches!(
            message.agent_control(),
            Ok(AgentControl::Error(error)) if error.code == Some(AgentCode::TakenOver)
        )
}

/// Re-attaches to the program and sends `leave`, if the start request was in flight or the connection was lost. Only the
/// same instance of the agent is contacted: the id could belong to another program of another instance.
async fn come_back_and_leave(target: &ExecTarget, id: ExecId) {
    let attach = ExecAttach { id, stdout: None, stderr: None, role: Role::Control };
    let deadline = Instant::now() + COME_BACK;
    for _ in 0..ATTEMPTS {
        let again = opening::once_more(target, &attach, deadline).await;
        let Ok((_, mut stream)) = again else { return };
        stream.writer.queue(&ChannelMessage::host(&HostControl::Leave));
        // The agent may attach the start request, whose connection is gone, after this one.
        if end_of(stream).await == LeaveEnd::Closed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::stream::tests::pair;
    use bytes::{Bytes, BytesMut};
    use minions_proto::AgentError;
    use minions_proto::channel::Ended;
    use minions_proto::frame::Decoder;
    use minions_proto::message::{Outcome, Usage};
    use tokio::io::AsyncWriteExt;

    /// Leaves a stream on which the agent sends output, and then `last`.
    async fn left(last: AgentControl) -> LeaveEnd {
        let (mut stream, mut agent, _epoch) = pair(Decoder::new());
        let mut bytes = BytesMut::new();
        let payload = Bytes::from_static(b"output");
        ChannelMessage { channel: Channel::Stdout, payload }.encode(&mut bytes);
        ChannelMessage::agent(&AgentControl::Heartbeat).encode(&mut bytes);
        ChannelMessage::agent(&last).encode(&mut bytes);
        agent.write_all(&bytes).await.unwrap();
        stream.writer.queue(&ChannelMessage::host(&HostControl::Leave));
        end_of(stream).await
    }

    #[tokio::test]
    async fn a_stream_is_read_to_its_last_message_after_leave() {
        let outcome = Outcome::Exited { code: 0 };
        let exit = AgentControl::Exit(Ended { outcome, usage: Usage::default() });
        assert_eq!(left(exit).await, LeaveEnd::Closed);
        let error = AgentError::new(AgentCode::TakenOver, "m");
        assert_eq!(left(AgentControl::Error(error)).await, LeaveEnd::TakenOver);
    }
}
