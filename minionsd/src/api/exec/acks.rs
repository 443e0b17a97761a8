//! Acknowledgement of output on behalf of WebSocket clients that send none.
//!
//! An agent keeps 512 KiB of each output stream until it is acknowledged and stops reading the program then. A
//! client that may re-attach acknowledges by itself, because only it knows what it has. For any other
//! client the daemon acknowledges what it has passed on, so that a simple client need not know of acks.

use minions_proto::channel::{AgentControl, Channel, ChannelMessage, HostControl, OutputStream};
use minions_proto::message::ExecAttached;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes of both streams after which an ack is due: half of what the agent keeps of one.
const ACK_AFTER: u64 = 256 * 1024;

/// Output that was passed on to one client.
#[derive(Debug)]
pub(super) struct Acks {
    passed: Mutex<Passed>,
    due: Notify,
}

#[derive(Debug)]
struct Passed {
    /// The client sent an ack: from then on acks are its own affair.
    client_acks: bool,
    /// Offsets after the last byte that was passed on.
    stdout: u64,
    stderr: u64,
    /// Bytes since the last ack.
    unacknowledged: u64,
}

impl Acks {
    pub(super) fn of(attached: &ExecAttached) -> Self {
        let passed = Passed {
            client_acks: false,
            stdout: attached.stdout,
            stderr: attached.stderr,
            unacknowledged: 0,
        };
        Self { passed: Mutex::new(passed), due: Notify::new() }
    }

    /// The client acknowledges by itself.
    pub(super) fn leave_to_client(&self) {
        self.passed().client_acks = true;
    }

    /// Counts a message that the client has been sent.
    pub(super) fn passed_on(&self, message: &ChannelMessage) {
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

    /// Waits until an ack is due; returns it.
    ///
    /// Cancel safe: an ack that is not returned is included in the next one.
    pub(super) async fn due(&self) -> HostControl {
        loop {
            self.due.notified().await;
            let mut passed = self.passed();
            if !passed.client_acks {
                passed.unacknowledged = 0;
                return HostControl::Ack { stdout: passed.stdout, stderr: passed.stderr };
            }
        }
    }

    /// Held for arithmetic.
    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
