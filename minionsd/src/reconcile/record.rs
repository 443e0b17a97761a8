//! State of the reconciler for one VM.

use super::attempt::{AttemptKind, InterfaceAddresses};
use super::handle::ApplyAnswer;
use super::wanted::WantedConfig;
use crate::vm::Vm;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// State of the reconciler for one VM.
#[derive(Debug)]
pub(super) struct VmRecord {
    pub(super) vm: Vm,
    pub(super) wanted: Option<WantedConfig>,
    /// Kind of the next attempt.
    pub(super) next: AttemptKind,
    /// Failed attempts in a row.
    pub(super) failures: u32,
    /// Time at which the VM became ready, or its configuration another one, until it is applied.
    pub(super) pending_since: Instant,
    /// True if something happened during the running attempt that needs another one.
    pub(super) is_outdated: bool,
    /// Callers that wait for the running attempt, and for the one after it.
    pub(super) waiting: [Vec<oneshot::Sender<ApplyAnswer>>; 2],
    /// End of the last attempt.
    pub(super) attempted_at: Option<Instant>,
    /// Addresses that the guest has been given in this boot.
    pub(super) addresses: InterfaceAddresses,
    /// Number of the regular look that the supervisor makes.
    pub(super) look: Option<u64>,
}

impl VmRecord {
    pub(super) fn new(vm: Vm) -> Self {
        Self {
            vm,
            wanted: None,
            next: AttemptKind::Apply,
            failures: 0,
            pending_since: Instant::now(),
            is_outdated: false,
            waiting: [Vec::new(), Vec::new()],
            attempted_at: None,
            addresses: InterfaceAddresses::default(),
            look: None,
        }
    }

    /// Plans the kind of the next attempt. Its result decides about further regular looks.
    pub(super) fn plan(&mut self, next: AttemptKind) {
        self.next = next;
        self.end_looks();
    }

    /// Ends the regular look.
    pub(super) fn end_looks(&mut self) {
        if self.look.take().is_some() {
            self.vm.look_slot().withdraw();
        }
    }

    /// Answers all callers that wait.
    pub(super) fn answer_all(&mut self, with: ApplyAnswer) {
        self.waiting.iter_mut().for_each(|waiting| answer(std::mem::take(waiting), with));
    }
}

/// Answers callers that wait.
pub(super) fn answer(waiting: Vec<oneshot::Sender<ApplyAnswer>>, with: ApplyAnswer) {
    for one in waiting {
        // The caller may have gone.
        let _ = one.send(with);
    }
}
