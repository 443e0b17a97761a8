//! Permission to dial a VM, given by its supervisor.
//!
//! A new connection to a VM that is paused stays unanswered, and with some VMMs it makes the VM unreachable for
//! good. So a call dials only if the agent answered the supervisor a moment ago. Otherwise it makes the
//! supervisor send a health check on the connection that the supervisor holds, and waits for the answer.

use super::status::RefusalReason;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// Maximum age of an answer that permits a dial. Shorter than the time between two probes, and long enough that calls
/// in quick succession share one answer.
const FRESH: Duration = Duration::from_secs(1);

/// State of the VM as its supervisor knows it, which decides whether calls may dial.
#[derive(Debug, Clone)]
pub(crate) enum Permission {
    /// The supervisor has no connection for a health check, so only a dial can show the state of the VM.
    Open,
    /// The agent answered at this time.
    Answered(Instant),
    /// A health check is not answered yet.
    Asked,
    /// Calls are refused for this reason.
    Refused(RefusalReason),
}

/// Reason why a call must not dial.
#[derive(Debug)]
pub(crate) enum DialRefusal {
    /// The agent did not answer before the caller's deadline.
    Unanswered,
    /// The VM is known not to answer.
    Refused(RefusalReason),
}

/// Gate that a call must pass before it dials. The supervisor sets the permission.
#[derive(Debug)]
pub(crate) struct DialGate {
    permission: watch::Sender<Permission>,
    /// Notification that makes the supervisor probe.
    nudge: Arc<Notify>,
}

impl DialGate {
    /// Creates an open gate. `nudge` makes the supervisor probe.
    pub(crate) fn new(nudge: Arc<Notify>) -> Self {
        Self { permission: watch::Sender::new(Permission::Open), nudge }
    }

    /// Publishes a new permission, and wakes the waiting calls if it differs from the current one.
    pub(crate) fn set(&self, permission: Permission) {
        self.permission.send_if_modified(|current| {
            let same = match (&*current, &permission) {
                (Permission::Open, Permission::Open) | (Permission::Asked, Permission::Asked) => {
                    true
                }
                (Permission::Answered(old), Permission::Answered(new)) => old == new,
                (Permission::Refused(old), Permission::Refused(new)) => old.failure == new.failure,
                _ => false,
            };
            *current = permission;
            !same
        });
    }

    /// Refuses all calls from now on: the VM is gone.
    pub(crate) fn close(&self) {
        self.set(Permission::Refused(RefusalReason::vanished()));
    }

    /// Reports whether no health check is outstanding and calls are not refused.
    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.permission.borrow(), Permission::Open | Permission::Answered(_))
    }

    /// Waits for the permission to dial.
    ///
    /// Cancel safe.
    pub(crate) async fn pass(&self, deadline: Instant) -> Result<(), DialRefusal> {
        let mut permission = self.permission.subscribe();
        loop {
            match &*permission.borrow_and_update() {
                Permission::Open => return Ok(()),
                Permission::Answered(at) if at.elapsed() <= FRESH => return Ok(()),
                Permission::Answered(_) => self.nudge.notify_one(),
                Permission::Asked => {}
                Permission::Refused(why) => {
                    self.nudge.notify_one();
                    return Err(DialRefusal::Refused(why.clone()));
                }
            }
            match timeout_at(deadline, permission.changed()).await {
                Ok(Ok(())) => {}
                Err(_) => return Err(DialRefusal::Unanswered),
                // Unreachable: `self` holds the sender.
                Ok(Err(_)) => return Err(DialRefusal::Refused(RefusalReason::vanished())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn gate() -> (DialGate, Arc<Notify>) {
        let nudge = Arc::new(Notify::new());
        (DialGate::new(Arc::clone(&nudge)), nudge)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test(start_paused = true)]
    async fn a_recent_answer_permits_a_dial_and_an_old_one_must_be_renewed() {
        let (gate, nudge) = gate();
        assert!(gate.pass(soon()).now_or_never().is_some(), "a new gate is open");
        gate.set(Permission::Answered(Instant::now()));
        assert!(gate.pass(soon()).now_or_never().is_some_and(|passed| passed.is_ok()));
        assert!(nudge.notified().now_or_never().is_none(), "the supervisor was nudged");
        tokio::time::advance(FRESH * 2).await;
        let answer = async {
            nudge.notified().await;
            gate.set(Permission::Asked);
            gate.set(Permission::Answered(Instant::now()));
        };
        let (passed, ()) = tokio::join!(gate.pass(soon()), answer);
        passed.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_an_outstanding_answer_until_its_deadline_or_a_refusal() {
        let (gate, _nudge) = gate();
        gate.set(Permission::Asked);
        let begun = Instant::now();
        let waited = gate.pass(begun + Duration::from_millis(300)).await;
        assert!(matches!(waited, Err(DialRefusal::Unanswered)), "{waited:?}");
        assert!(begun.elapsed() >= Duration::from_millis(300));
        let refuse = async {
            gate.close();
        };
        let (refused, ()) = tokio::join!(gate.pass(soon()), refuse);
        assert!(matches!(refused, Err(DialRefusal::Refused(_))), "{refused:?}");
    }
}
