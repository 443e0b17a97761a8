//! Known end of a boot: the guest reboots, or is powered off.
//!
//! A guest that reboots or powers off fails probes like a broken one. So minionsd remembers the end that a client
//! requested or that the VMM's socket shows, and reports it as the reason for the failures that follow.
//!
//! | known by | reason | until |
//! |---|---|---|
//! | a request to reboot | `rebooting` | another boot answers, or [`REBOOT_LIMIT`] |
//! | a VMM that removed its socket and still runs | `rebooting` | the same |
//! | a request to power off | `powered_off` | another boot answers |

use super::process::ProcessId;
use minions_api::vm::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// Time after which the failures of a guest that should have ended or booted are reported as such again. An init that
/// stops services takes up to 90 s (systemd's default limit for one service).
pub(crate) const REBOOT_LIMIT: Duration = Duration::from_mins(2);

/// Way in which a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndingKind {
    /// Reboot: another boot follows.
    Reboot,
    /// Poweroff: no boot follows before the VM is started again.
    Poweroff,
}

/// End of a boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) kind: EndingKind,
    since: Instant,
}

/// Failure that the end of a boot may explain, and the state of the VM.
#[derive(Debug)]
pub(crate) struct ObservedFailure<'a> {
    pub(crate) failure: Failure,
    pub(crate) message: &'a str,
    /// True if the VMM has created the socket again.
    pub(crate) recreated: bool,
    pub(crate) vmm: Option<&'a ProcessId>,
}

/// Explanation of a failure by the end of a boot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExplainedFailure {
    pub(crate) failure: Failure,
    pub(crate) message: String,
    /// True if the guest has halted; `None` for a reboot.
    pub(crate) halted: Option<bool>,
}

impl Ending {
    /// Returns the end of a boot that begins now.
    pub(crate) fn now(kind: EndingKind) -> Self {
        Self { kind, since: Instant::now() }
    }

    /// Reports whether the end should have happened already.
    pub(crate) fn is_overdue(&self) -> bool {
        self.since.elapsed() > REBOOT_LIMIT
    }

    /// Returns the explanation of a failure that this end causes; `None` for all other failures.
    pub(crate) fn explain(&self, observed: &ObservedFailure<'_>) -> Option<ExplainedFailure> {
        if !is_explained(observed.failure) {
            return None;
        }
        match self.kind {
            // The VMM has ended, so no guest boots before the VMM is started again.
            EndingKind::Reboot if observed.failure == Failure::NoListener || self.is_overdue() => {
                None
            }
            EndingKind::Reboot => Some(ExplainedFailure {
                failure: Failure::Rebooting,
                message: format!("the guest is rebooting: {}", observed.message),
                halted: None,
            }),
            EndingKind::Poweroff => Some(off(observed)),
        }
    }
}

/// Reports whether the end of a guest can cause this failure.
fn is_explained(failure: Failure) -> bool {
    match failure {
        Failure::NoSocket
        | Failure::NoListener
        | Failure::ConnectFailed
        | Failure::NoHandshake
        | Failure::NoAgent
        | Failure::AgentSilent
        | Failure::AgentClosed => true,
        Failure::BadHandshake
        | Failure::ProtocolError
        | Failure::AgentError
        | Failure::Rebooting
        | Failure::PoweredOff
        | Failure::Restoring
        | Failure::RestoreFailed
        | Failure::PausedOrHung
        | Failure::DaemonExhausted => false,
    }
}

/// Explains a failure of a guest that was requested to power off.
fn off(observed: &ObservedFailure<'_>) -> ExplainedFailure {
    let halted = match observed.failure {
        Failure::NoSocket | Failure::NoListener | Failure::NoHandshake | Failure::AgentSilent => {
            true
        }
        // The guest's kernel, or a backend without a guest, refuses connections.
        _ => observed.recreated,
    };
    let message = match observed.failure {
        Failure::NoSocket | Failure::NoListener => format!("powered off: {}", observed.message),
        _ if !halted => "powered off or shutting down: the agent has ended".to_owned(),
        _ => match observed.vmm.and_then(ProcessId::how_to_end) {
            Some(how) => format!("powered off: the guest does not answer any more; {how}"),
            None => "powered off: the guest does not answer any more".to_owned(),
        },
    };
    ExplainedFailure { failure: Failure::PoweredOff, message, halted: Some(halted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: [Failure; 7] = [
        Failure::NoSocket,
        Failure::NoListener,
        Failure::ConnectFailed,
        Failure::NoHandshake,
        Failure::NoAgent,
        Failure::AgentSilent,
        Failure::AgentClosed,
    ];

    fn process(name: &str) -> ProcessId {
        ProcessId { pid: 4711, started: Some(1), name: Some(name.into()) }
    }

    fn explain(
        ending: &Ending,
        failure: Failure,
        vmm: Option<&ProcessId>,
    ) -> Option<ExplainedFailure> {
        ending.explain(&ObservedFailure { failure, message: "m", recreated: false, vmm })
    }

    fn reason(ending: &Ending, failure: Failure) -> Option<Failure> {
        explain(ending, failure, None).map(|explained| explained.failure)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reboot_explains_failures_for_a_limited_time_and_never_the_end_of_the_vmm() {
        let reboot = Ending::now(EndingKind::Reboot);
        for layer in LAYERS {
            let expected = (layer != Failure::NoListener).then_some(Failure::Rebooting);
            assert_eq!(reason(&reboot, layer), expected, "{layer:?}");
        }
        assert_eq!(reason(&reboot, Failure::ProtocolError), None);
        tokio::time::advance(REBOOT_LIMIT + Duration::from_secs(1)).await;
        assert!(LAYERS.iter().all(|layer| reason(&reboot, *layer).is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_poweroff_explains_later_failures_without_a_time_limit() {
        let poweroff = Ending::now(EndingKind::Poweroff);
        tokio::time::advance(REBOOT_LIMIT * 100).await;
        for layer in LAYERS {
            assert_eq!(reason(&poweroff, layer), Some(Failure::PoweredOff), "{layer:?}");
        }
        for other in [Failure::ProtocolError, Failure::BadHandshake, Failure::DaemonExhausted] {
            assert_eq!(reason(&poweroff, other), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn the_message_for_a_vmm_that_keeps_a_halted_guest_says_how_to_end_it() {
        let poweroff = Ending::now(EndingKind::Poweroff);
        let said = |layer, name| explain(&poweroff, layer, Some(&process(name))).unwrap().message;
        assert!(said(Failure::NoHandshake, "firecracker").ends_with("kill 4711"));
        assert!(!said(Failure::NoHandshake, "vhost-device-vs").contains("kill"));
        assert!(
            !said(Failure::NoAgent, "firecracker").contains("kill"),
            "the guest is still shutting down"
        );
        let halted = |layer| explain(&poweroff, layer, None).unwrap().halted;
        assert_eq!(halted(Failure::NoAgent), Some(false));
        assert_eq!(halted(Failure::NoHandshake), Some(true));
    }
}
