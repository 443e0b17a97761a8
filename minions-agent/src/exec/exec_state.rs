//! State of an exec that changes until its end.

use super::input::InputBuffer;
use super::process::Cgroup;
use super::ring::OutputRing;
use minions_proto::Invalid;
use minions_proto::channel::{Ended, OutputStream};
use minions_proto::message::{ExecId, Outcome, Signal};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Output, input, client and end of an exec, as they are now.
#[derive(Debug)]
pub(super) struct ExecState {
    pub(super) stdout: OutputRing,
    pub(super) stderr: OutputRing,
    pub(super) input: InputBuffer,
    pub(super) client: ClientPresence,
    /// Number of the client's attachment (the newest one with the role `control`).
    pub(super) holder: u64,
    pub(super) orders: PendingOrders,
    /// True once the process is being told to end.
    pub(super) end_requested: bool,
    pub(super) ended: Option<Ended>,
    /// Control group of the processes that outlived the program.
    pub(super) leftover: Option<Cgroup>,
    /// Id of a program that a later generation of the guest has inherited.
    pub(super) inherited_as: Option<ExecId>,
}

/// Presence of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientPresence {
    Here,
    Away { since: Instant },
    Gone,
}

/// Orders for the process that have not been carried out.
#[derive(Debug, Default)]
pub(super) struct PendingOrders {
    pub(super) signals: VecDeque<Signal>,
    pub(super) size: Option<(u16, u16)>,
    pub(super) end: bool,
}

impl ExecState {
    pub(super) fn new(input: InputBuffer, client: ClientPresence) -> Self {
        Self {
            stdout: OutputRing::default(),
            stderr: OutputRing::default(),
            input,
            client,
            holder: 0,
            orders: PendingOrders::default(),
            end_requested: false,
            ended: None,
            leftover: None,
            inherited_as: None,
        }
    }

    /// Reports whether the program was started by an earlier agent, or its end could not be observed.
    pub(super) fn is_lost(&self) -> bool {
        self.ended.as_ref().is_some_and(|end| matches!(end.outcome, Outcome::Lost { .. }))
    }

    /// Returns the number of processes that outlived the program and still run, or `None` without any.
    pub(super) fn left_running(&mut self) -> Option<u64> {
        let left = self.leftover.take_if(|left| !left.is_alive());
        // Dropping the group removes its directory, or returns it to the pool of control groups.
        drop(left);
        // Processes in subgroups are not counted; where there are no others, report one.
        self.leftover.as_ref().map(|left| left.processes().max(1))
    }

    pub(super) fn ring(&self, stream: OutputStream) -> &OutputRing {
        match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        }
    }

    pub(super) fn ring_mut(&mut self, stream: OutputStream) -> &mut OutputRing {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Reports whether output that the client lacks must be kept.
    pub(super) fn holds(&self) -> bool {
        self.client != ClientPresence::Gone
    }

    /// Returns the number of the client's attachment.
    pub(super) fn holder(&self) -> u64 {
        self.holder
    }

    pub(super) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}

/// Returns the first offset that a stream sends: the requested one, or the oldest that is kept.
pub(super) fn first_offset(
    field: &str,
    requested: Option<u64>,
    ring: &OutputRing,
    is_lost: bool,
) -> Result<u64, Invalid> {
    match requested {
        Some(offset) if offset > ring.end() && !is_lost => {
            let reason =
                format!("is {offset}, but the program has written only {} bytes", ring.end());
            Err(Invalid::new(field, reason))
        }
        Some(offset) => Ok(offset),
        None => Ok(ring.start()),
    }
}
