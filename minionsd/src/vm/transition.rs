//! State machine of a VM.
//!
//! ```text
//!   found                        answered
//!  ──────▶ ┌────────────┐ ──────────────────────▶ ┌───────┐
//!          │ connecting │                         │ ready │ ◀──────┐
//!          └────────────┘        ┌──────────────  └───────┘ ──┐    │
//!            │       │           │ 3 probes failed  ▲         │    │
//!            │       │ 3 probes  │ 3 calls failed   │ answered│    │ answered
//!            │       │ failed    ▼                  │         │    │
//!            │       └───▶ ┌─────────────┐ ─────────┘         │    │
//!            │             │ unreachable │                    │    │
//!            │             └─────────────┘                    │    │
//!            │  a probe failed  ▲  │ no listener              │    │
//!            │  otherwise       │  ▼                          │    │
//!            └──────────────▶ ┌───────┐ ◀─────────────────────┘    │
//!               no listener   │ stale │  no listener               │
//!                             └───────┘ ───────────────────────────┘
//!
//!  connecting, ready: the VMM removes its socket, and still runs ──▶ unreachable
//!  connecting, ready, stale: the guest was restored or cloned ──▶ unreachable
//!  any state: the socket file vanishes or is replaced, and the VMM is not known to run ──▶ gone
//! ```
//!
//! * One `no listener` is enough: the kernel reports that no process listens.
//! * From `stale`, a failure of another kind means that a process listens again.
//! * Failed calls count too, because an agent may answer probes but no calls. Three that fail in a row open the
//!   circuit breaker: further calls fail at once. A probe on a new connection follows immediately; the first
//!   answered probe closes the breaker.
//! * A probe that minionsd cannot make, for lack of a resource, changes nothing.

use minions_api::vm::{Cause, Failure, VmState};

/// Number of probes, or of calls, that must fail in a row.
pub(crate) const FAILURES_TO_UNREACHABLE: u32 = 3;

/// Observation of a VM's supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Observation {
    /// A probe was answered.
    Answered,
    /// A probe failed.
    Failed {
        /// Layer that failed.
        failure: Failure,
        /// Number of failures in a row, including this one.
        in_a_row: u32,
    },
    /// Enough calls failed in a row to open the circuit breaker.
    CallsFailed,
    /// The VMM removed its socket or created another one, and still runs.
    SocketRemoved,
    /// A probe was answered: the guest was restored, and its restore steps have not succeeded yet.
    Restoring,
}

/// Returns the next state and the cause of the transition; `None` if the state stays the same.
pub(crate) fn next(state: VmState, seen: Observation) -> Option<(VmState, Cause)> {
    use VmState::{Connecting, Ready, Stale, Unreachable};
    match (state, seen) {
        (Ready, Observation::Answered) => None,
        (Connecting | Unreachable | Stale, Observation::Answered) => Some((Ready, Cause::Answered)),

        (_, Observation::Failed { failure: Failure::DaemonExhausted, .. }) => None,
        (Stale, Observation::Failed { failure: Failure::NoListener, .. }) => None,
        (
            Connecting | Ready | Unreachable,
            Observation::Failed { failure: Failure::NoListener, .. },
        ) => Some((Stale, Cause::NoListener)),
        (Stale, Observation::Failed { .. }) => Some((Unreachable, Cause::ProbesFailed)),
        (Connecting | Ready, Observation::Failed { in_a_row, .. }) => {
            (in_a_row >= FAILURES_TO_UNREACHABLE).then_some((Unreachable, Cause::ProbesFailed))
        }
        (Unreachable, Observation::Failed { .. }) => None,

        (Ready, Observation::CallsFailed) => Some((Unreachable, Cause::CallsFailed)),
        // No calls start in these states; those still in progress say nothing new.
        (Connecting | Unreachable | Stale, Observation::CallsFailed) => None,

        (Unreachable, Observation::SocketRemoved) => None,
        (Connecting | Ready | Stale, Observation::SocketRemoved) => {
            Some((Unreachable, Cause::Rebooting))
        }

        (Unreachable, Observation::Restoring) => None,
        (Connecting | Ready | Stale, Observation::Restoring) => {
            Some((Unreachable, Cause::Restoring))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use VmState::{Connecting, Ready, Stale, Unreachable};

    const STATES: [VmState; 4] = [Connecting, Ready, Unreachable, Stale];

    /// Returns the observations, each with the state that follows each of [`STATES`].
    fn table() -> Vec<(Observation, [VmState; 4])> {
        let failed = |failure, in_a_row| Observation::Failed { failure, in_a_row };
        vec![
            (Observation::Answered, [Ready; 4]),
            (Observation::CallsFailed, [Connecting, Unreachable, Unreachable, Stale]),
            (Observation::SocketRemoved, [Unreachable; 4]),
            (Observation::Restoring, [Unreachable; 4]),
            (failed(Failure::NoListener, 1), [Stale; 4]),
            (failed(Failure::AgentSilent, 1), [Connecting, Ready, Unreachable, Unreachable]),
            (failed(Failure::AgentSilent, 2), [Connecting, Ready, Unreachable, Unreachable]),
            (failed(Failure::AgentSilent, 3), [Unreachable; 4]),
            (failed(Failure::NoAgent, 99), [Unreachable; 4]),
            (failed(Failure::DaemonExhausted, 99), STATES),
        ]
    }

    #[test]
    fn every_transition_matches_the_diagram() {
        for (seen, expected) in table() {
            for (state, expected) in STATES.into_iter().zip(expected) {
                let after = next(state, seen).map_or(state, |(after, _)| after);
                assert_eq!(after, expected, "{state:?} and {seen:?}");
            }
        }
    }

    #[test]
    fn a_transition_changes_the_state_and_has_the_matching_cause() {
        for (seen, _) in table() {
            for state in STATES {
                let Some((after, cause)) = next(state, seen) else { continue };
                assert_ne!(state, after, "{seen:?}");
                let because = match seen {
                    Observation::Answered => Cause::Answered,
                    Observation::CallsFailed => Cause::CallsFailed,
                    Observation::SocketRemoved => Cause::Rebooting,
                    Observation::Restoring => Cause::Restoring,
                    Observation::Failed { failure: Failure::NoListener, .. } => Cause::NoListener,
                    Observation::Failed { .. } => Cause::ProbesFailed,
                };
                assert_eq!(cause, because);
            }
        }
    }
}
