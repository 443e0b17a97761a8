//! Handle of the reconciler.

use crate::vm::Vm;
use minions_api::VmName;
use minions_api::pool::Lease;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Requests that wait for the task.
const REQUESTS: usize = 64;

/// Reason why a configuration was not applied on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotApplied {
    /// Nothing is declared for the VM.
    #[error("no declaration has settings for this VM; GET /declarations lists them")]
    NothingDeclared,
    /// The VM is gone.
    #[error("the VM is gone")]
    Gone,
    /// Another VM has the name now.
    #[error("another VM has the name now; repeat the request if that VM is meant")]
    Replaced,
    /// The attempt did not end before the deadline.
    #[error("the configuration was not applied before the deadline; the attempt continues")]
    TimedOut,
    /// The daemon stops.
    #[error("minionsd is stopping")]
    Stopping,
}

/// Handle of the reconciler. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Reconciler(mpsc::Sender<ReconcileRequest>);

/// Request to the task.
#[derive(Debug)]
pub(super) enum ReconcileRequest {
    /// Apply to this VM now.
    Apply(Vm, oneshot::Sender<ApplyAnswer>),
    /// Compare soon: the guest was changed by hand, or its leases were changed.
    Look(VmName),
}

/// Answer to a request to apply a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApplyAnswer {
    /// An attempt has ended.
    Ended,
    /// Nothing is declared.
    NothingDeclared,
    /// The VM is gone.
    Gone,
    /// Another VM has the name.
    Replaced,
}

impl Reconciler {
    /// Creates a handle, and the receiver of its requests.
    pub(super) fn new() -> (Self, mpsc::Receiver<ReconcileRequest>) {
        let (requests, asked) = mpsc::channel(REQUESTS);
        (Self(requests), asked)
    }

    /// Applies the configuration of a VM, and waits for the end of the attempt.
    ///
    /// Safe to cancel: the attempt continues.
    pub(crate) async fn apply_now(&self, vm: &Vm, deadline: Instant) -> Result<(), NotApplied> {
        let (answer, answered) = oneshot::channel();
        let apply = async {
            let request = ReconcileRequest::Apply(vm.clone(), answer);
            self.0.send(request).await.map_err(|_| NotApplied::Stopping)?;
            match answered.await {
                Ok(ApplyAnswer::Ended) => Ok(()),
                Ok(ApplyAnswer::NothingDeclared) => Err(NotApplied::NothingDeclared),
                Ok(ApplyAnswer::Gone) => Err(NotApplied::Gone),
                Ok(ApplyAnswer::Replaced) => Err(NotApplied::Replaced),
                Err(_) => Err(NotApplied::Stopping),
            }
        };
        timeout_at(deadline, apply).await.unwrap_or(Err(NotApplied::TimedOut))
    }

    /// Compares the guest soon, because it was changed by hand.
    pub(crate) async fn look_soon(&self, vm: &VmName) {
        // Fails only when the daemon ends.
        let _ = self.0.send(ReconcileRequest::Look(vm.clone())).await;
    }

    /// Makes sure that the VM of a changed lease gets the address that it must have now. For the thread that changes the
    /// declared state: a caller that has gone must not make a difference. Blocks while many requests wait.
    pub(crate) fn lease_changed(&self, lease: &Lease) {
        if let Some(vm) = &lease.vm {
            // Fails only when the daemon ends.
            let _ = self.0.blocking_send(ReconcileRequest::Look(vm.clone()));
        }
    }
}
