//! From which state to which, and why: the whole of it.
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
//!  connecting, ready: the VMM removes its socket, and lives ──▶ unreachable
//!  from any of them: the socket file vanishes, or is another one, and its VMM is not known to live ──▶ gone
//! ```
//!
//! * `no listener` needs no second look: the kernel itself says that nobody is there.
//! * From `stale`, a failure of another kind means that somebody listens again.
//! * Calls count as well as probes, because an agent may answer the ones and not the others. Three that
//!   fail in a row open the breaker: further ones fail at once. The next probe that is answered closes
//!   it, and is sent right away, over a connection of its own.
//! * When it is the daemon that can't probe, nothing is known, and nothing changes.

use minions_api::vm::{Cause, Failure, VmState};

/// Probes, or calls, that must fail in a row.
pub(crate) const FAILURES_TO_UNREACHABLE: u32 = 3;

/// What a VM's supervisor learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A probe was answered.
    Answered,
    /// A probe failed.
    Failed {
        /// At this layer.
        failure: Failure,
        /// Together with those before.
        in_a_row: u32,
    },
    /// So many calls failed that more of them make no sense.
    CallsFailed,
    /// The VMM removed its socket, or created another one, and lives.
    SocketRemoved,
}

/// The state that follows, and what leads there; `None` if it stays.
pub(crate) fn next(state: VmState, seen: Seen) -> Option<(VmState, Cause)> {
    use VmState::{Connecting, Ready, Stale, Unreachable};
    match (state, seen) {
        (Ready, Seen::Answered) => None,
        (Connecting | Unreachable | Stale, Seen::Answered) => Some((Ready, Cause::Answered)),

        (_, Seen::Failed { failure: Failure::DaemonExhausted, .. }) => None,
        (Stale, Seen::Failed { failure: Failure::NoListener, .. }) => None,
        (Connecting | Ready | Unreachable, Seen::Failed { failure: Failure::NoListener, .. }) => {
            Some((Stale, Cause::NoListener))
        }
        (Stale, Seen::Failed { .. }) => Some((Unreachable, Cause::ProbesFailed)),
        (Connecting | Ready, Seen::Failed { in_a_row, .. }) => {
            (in_a_row >= FAILURES_TO_UNREACHABLE).then_some((Unreachable, Cause::ProbesFailed))
        }
        (Unreachable, Seen::Failed { .. }) => None,

        (Ready, Seen::CallsFailed) => Some((Unreachable, Cause::CallsFailed)),
        // Calls aren't made there; those still under way say nothing new.
        (Connecting | Unreachable | Stale, Seen::CallsFailed) => None,

        (Unreachable, Seen::SocketRemoved) => None,
        (Connecting | Ready | Stale, Seen::SocketRemoved) => Some((Unreachable, Cause::Rebooting)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use VmState::{Connecting, Ready, Stale, Unreachable};

    const STATES: [VmState; 4] = [Connecting, Ready, Unreachable, Stale];

    /// All that can be seen, with the state that follows each of [`STATES`].
    fn table() -> Vec<(Seen, [VmState; 4])> {
        let failed = |failure, in_a_row| Seen::Failed { failure, in_a_row };
        vec![
            (Seen::Answered, [Ready; 4]),
            (Seen::CallsFailed, [Connecting, Unreachable, Unreachable, Stale]),
            (Seen::SocketRemoved, [Unreachable; 4]),
            (failed(Failure::NoListener, 1), [Stale; 4]),
            (failed(Failure::AgentSilent, 1), [Connecting, Ready, Unreachable, Unreachable]),
            (failed(Failure::AgentSilent, 2), [Connecting, Ready, Unreachable, Unreachable]),
            (failed(Failure::AgentSilent, 3), [Unreachable; 4]),
            (failed(Failure::NoAgent, 99), [Unreachable; 4]),
            (failed(Failure::DaemonExhausted, 99), STATES),
        ]
    }

    #[test]
    fn every_transition_is_as_drawn() {
        for (seen, expected) in table() {
            for (state, expected) in STATES.into_iter().zip(expected) {
                let after = next(state, seen).map_or(state, |(after, _)| after);
                assert_eq!(after, expected, "{state:?} and {seen:?}");
            }
        }
    }

    #[test]
    fn a_transition_leads_elsewhere_and_says_why() {
        for (seen, _) in table() {
            for state in STATES {
                let Some((after, cause)) = next(state, seen) else { continue };
                assert_ne!(state, after, "{seen:?}");
                let because = match seen {
                    Seen::Answered => Cause::Answered,
                    Seen::CallsFailed => Cause::CallsFailed,
                    Seen::SocketRemoved => Cause::Rebooting,
                    Seen::Failed { failure: Failure::NoListener, .. } => Cause::NoListener,
                    Seen::Failed { .. } => Cause::ProbesFailed,
                };
                assert_eq!(cause, because);
            }
        }
    }
}
