//! Acknowledgement of output on behalf of WebSocket clients that send none.
//!
//! An agent keeps at most 512 KiB of unacknowledged output of each stream, and then stops reading from the program. A
//! client that may re-attach sends its own acks, because only the client knows what it has received. For any other
//! client, the daemon acknowledges the output that it has passed on, so that a simple client need not know about acks.

use minions_proto::channel::{AgentControl, Channel, ChannelMessage, HostControl, OutputStream};
use minions_proto::message::ExecAttached;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Number of bytes, of both streams together, after which an ack is due: half of what the agent keeps of one stream.
const ACK_AFTER: u64 = 256 * 1024;

/// Tracks the output that was passed on to one client.
#[derive(Debug)]
pub(crate) struct OutputAcks {
    passed: Mutex<PassedOutput>,
    due: Notify,
}

#[derive(Debug)]
struct PassedOutput {
    /// True after the client has sent an ack: from then on, the daemon sends none.
    client_acks: bool,
    /// Offset after the last byte of standard output that was passed on.
    stdout: u64,
    /// Offset after the last byte of standard error that was passed on.
    stderr: u64,
    /// Number of bytes since the last ack.
    unacknowledged: u64,
}

impl OutputAcks {
    pub(crate) fn of(attached: &ExecAttached) -> Self {
        let passed = PassedOutput {
            client_acks: false,
            stdout: attached.stdout,
            stderr: attached.stderr,
            unacknowledged: 0,
        };
        Self { passed: Mutex::new(passed), due: Notify::new() }
    }

    /// Stops the daemon's acks, because the client sends its own.
    pub(crate) fn leave_to_client(&self) {
        self.passed().client_acks = true;
    }

    /// Counts a message that was sent to the client.
    pub(crate) fn passed_on(&self, message: &ChannelMessage) {
        let mut passed = self.passed();
        let len = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        match message.channel {
            Channel::Stdout => passed.stdout = passed.stdout.saturating_add(len),
            Channel::Stderr => passed.stderr = passed.stderr.saturating_add(len),
            Channel::Control => {
                match message.agent_control() {
                    Ok(AgentControl::Gap { stream: OutputStream::Stdout, to, .. }) => {
                        passed.stdout = to;
                    }
                    Ok(AgentControl::Gap { stream: OutputStream::Stderr, to, .. }) => {
                        passed.stderr = to;
                    }
                    _ => {}
                }
                return;
            }
            Channel::Stdin => return,
        }
        passed.unacknowledged = passed.unacknowledged.saturating_add(len);
        if passed.unacknowledged >= ACK_AFTER && !passed.client_acks {
            self.due.notify_one();
        }
    }

    /// Waits until an ack is due, and returns it.
    ///
    /// Cancel safe: an ack that is not returned is included in the next one.
    pub(crate) async fn due(&self) -> HostControl {
        loop {
            self.due.notified().await;
            let mut passed = self.passed();
            if !passed.client_acks {
                passed.unacknowledged = 0;
                return HostControl::Ack { stdout: passed.stdout, stderr: passed.stderr };
            }
        }
    }

    /// Locks the counts. The lock is held only for arithmetic.
    fn passed(&self) -> MutexGuard<'_, PassedOutput> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::FutureExt;

    fn output(channel: Channel, len: usize) -> ChannelMessage {
        ChannelMessage { channel, payload: Bytes::from(vec![b'x'; len]) }
    }

    fn acks() -> OutputAcks {
        OutputAcks::of(&ExecAttached {
            id: "x".parse().unwrap(),
            created: false,
            pid: 1,
            stdout: 1_000,
            stderr: 50,
            stdin: 0,
            stdin_acked: 0,
            stdin_window: 0,
            stdin_closed: false,
            reattach_grace_ms: None,
        })
    }

    #[test]
    fn an_ack_is_due_after_256_kib_of_both_outputs_and_contains_both_offsets() {
        let acks = acks();
        for _ in 0..2 {
            acks.passed_on(&output(Channel::Stdout, 200 * 1024));
            acks.passed_on(&output(Channel::Stderr, 56 * 1024 - 1));
            assert!(acks.due().now_or_never().is_none(), "one byte is missing");
            acks.passed_on(&output(Channel::Stderr, 1));
            assert!(acks.due().now_or_never().is_some());
        }
        acks.passed_on(&output(Channel::Stdout, 256 * 1024));
        let expected =
            HostControl::Ack { stdout: 1_000 + (2 * 200 + 256) * 1024, stderr: 50 + 2 * 56 * 1024 };
        assert_eq!(acks.due().now_or_never(), Some(expected));
    }

    #[test]
    fn a_client_that_acknowledges_is_left_to_do_so() {
        let acks = acks();
        acks.passed_on(&output(Channel::Stdout, 256 * 1024));
        acks.leave_to_client();
        assert!(acks.due().now_or_never().is_none());
        acks.passed_on(&output(Channel::Stdout, 1024 * 1024));
        assert!(acks.due().now_or_never().is_none());
    }
}
