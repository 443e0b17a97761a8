//! A VM's state.
//!
//! ```text
//!                     answered
//!   ┌────────────┐ ──────────────▶ ┌───────┐
//!   │ connecting │                 │ ready │ ◀─┐
//!   └────────────┘                 └───────┘   │
//!      │      │  3 failures          │    │    │ answered
//!      │      └───────────────┐      │    │    │
//!      │ no listener          ▼  3 failures    │
//!      │              ┌─────────────┐◀┘   │    │
//!      │              │ unreachable │ ────│────┤
//!      ▼              └─────────────┘     │    │
//!   ┌───────┐  no listener │  ▲           │    │
//!   │ stale │ ◀────────────┘  │ any other │    │
//!   └───────┘ ◀───────────────│── no listener  │
//!      └──────────────────────┴────────────────┘
//! ```
//!
//! A VM is gone when its socket file is: its supervisor then ends, and the registry forgets it.
//! `no listener` needs no second look: the kernel itself says that nobody is there.

use minions_api::Timestamp;
use minions_api::vm::{Failure, Reason, VmState};
use minions_proto::message::{AgentInfo, Health};
use std::time::Duration;

/// Probes that must fail in a row before a VM counts as unreachable.
const FAILURES_TO_UNREACHABLE: u32 = 3;

/// Between probes of a VM that answers, ± a tenth so that a thousand VMs don't march in step.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// The pause after the first failed probe, and how it grows.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_FACTOR: f64 = 1.6;
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The longest string of a guest's that is kept for as long as the VM lives, in bytes. The kernel
/// allows 64 for a hostname; UUIDs have 36.
const KEPT_TEXT: usize = 256;

/// The most features that are kept.
const KEPT_FEATURES: usize = 64;

/// What a VM's supervisor publishes.
#[derive(Debug, Clone)]
pub(crate) struct VmStatus {
    pub(crate) state: VmState,
    pub(crate) since: Timestamp,
    pub(crate) reason: Option<Reason>,
    pub(crate) agent: Option<AgentInfo>,
    pub(crate) hostname: Option<String>,
    pub(crate) failed_probes: u32,
    pub(crate) last_seen: Option<Timestamp>,
}

/// Why calls are turned away.
#[derive(Debug, Clone)]
pub(crate) struct Unready {
    pub(crate) failure: Failure,
    pub(crate) message: String,
}

/// What a health check showed beyond that the agent lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incarnation {
    /// Nothing new, or the first answer.
    Same,
    /// The agent started anew, with or without its guest: connections from before lead nowhere.
    Changed,
}

impl VmStatus {
    /// A VM whose socket was just found.
    pub(crate) fn found(now: Timestamp) -> Self {
        Self {
            state: VmState::Connecting,
            since: now,
            reason: None,
            agent: None,
            hostname: None,
            failed_probes: 0,
            last_seen: None,
        }
    }

    /// No probe has come back yet: nobody can say.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.state == VmState::Connecting && self.failed_probes == 0
    }

    /// Why calls are turned away, unless it may well answer.
    pub(crate) fn unready(&self) -> Option<Unready> {
        match self.state {
            VmState::Ready => None,
            VmState::Connecting | VmState::Unreachable | VmState::Stale => self
                .reason
                .as_ref()
                .map(|reason| Unready { failure: reason.failure, message: reason.message.clone() }),
        }
    }

    /// A probe was answered.
    pub(crate) fn answered(&mut self, health: Health, now: Timestamp) -> Incarnation {
        let agent = health.agent.map(bounded);
        let changed = match (&self.agent, &agent) {
            (Some(old), Some(new)) => {
                old.boot_id != new.boot_id || old.instance_id != new.instance_id
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        self.enter(VmState::Ready, now);
        self.reason = None;
        self.failed_probes = 0;
        self.last_seen = Some(now);
        self.hostname = Some(clipped(health.hostname));
        self.agent = agent;
        if changed { Incarnation::Changed } else { Incarnation::Same }
    }

    /// A probe failed.
    pub(crate) fn failed(&mut self, failure: Failure, message: String, now: Timestamp) {
        self.failed_probes = self.failed_probes.saturating_add(1);
        self.reason = Some(Reason { failure, message, at: now });
        if matches!(failure, Failure::NoListener) {
            self.enter(VmState::Stale, now);
        } else if self.failed_probes >= FAILURES_TO_UNREACHABLE || self.state == VmState::Stale {
            self.enter(VmState::Unreachable, now);
        }
    }

    /// The pause before the next probe. `jitter` is a random number from 0 to 1.
    pub(crate) fn pause(&self, jitter: f64) -> Duration {
        match self.failed_probes {
            0 => PROBE_INTERVAL.mul_f64(0.9 + 0.2 * jitter),
            failures => backoff(failures, jitter),
        }
    }

    fn enter(&mut self, state: VmState, now: Timestamp) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }
}

/// The pause after so many failures in a row; none after none.
pub(crate) fn backoff(failures: u32, jitter: f64) -> Duration {
    let Some(grown) = failures.checked_sub(1) else { return Duration::ZERO };
    let exponent = i32::try_from(grown).unwrap_or(i32::MAX).min(32);
    let grown = BACKOFF_FIRST.mul_f64(BACKOFF_FACTOR.powi(exponent)).min(BACKOFF_MAX);
    // Full jitter, but never none: a probe costs the VMM a connection.
    grown.mul_f64(jitter).max(BACKOFF_FIRST / 2)
}

/// What an agent says of itself, no longer than an honest one would.
fn bounded(agent: AgentInfo) -> AgentInfo {
    AgentInfo {
        name: clipped(agent.name),
        version: clipped(agent.version),
        protocol: agent.protocol,
        features: agent.features.into_iter().take(KEPT_FEATURES).map(clipped).collect(),
        boot_id: clipped(agent.boot_id),
        instance_id: clipped(agent.instance_id),
    }
}

fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(KEPT_TEXT));
    text.shrink_to_fit();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(instance: &str) -> Health {
        let agent = AgentInfo {
            name: "a".into(),
            version: "1".into(),
            protocol: 2,
            features: Vec::new(),
            boot_id: "boot".into(),
            instance_id: instance.into(),
        };
        Health { uptime_secs: 1, hostname: "guest".into(), agent: Some(agent), time_unix_ms: None }
    }

    fn failed(status: &mut VmStatus, failure: Failure) -> VmState {
        status.failed(failure, String::new(), Timestamp::now());
        status.state
    }

    #[test]
    fn three_failures_make_a_ready_vm_unreachable_and_one_answer_brings_it_back() {
        let mut status = VmStatus::found(Timestamp::now());
        status.answered(health("1"), Timestamp::now());
        assert_eq!(failed(&mut status, Failure::AgentSilent), VmState::Ready);
        assert_eq!(failed(&mut status, Failure::AgentSilent), VmState::Ready);
        assert_eq!(failed(&mut status, Failure::AgentSilent), VmState::Unreachable);
        assert!(status.unready().is_some());
        status.answered(health("1"), Timestamp::now());
        assert_eq!((status.state, status.failed_probes), (VmState::Ready, 0));
        assert!(status.unready().is_none());
    }

    #[test]
    fn nobody_listening_is_stale_at_once_and_a_listener_without_agent_is_unreachable() {
        let mut status = VmStatus::found(Timestamp::now());
        status.answered(health("1"), Timestamp::now());
        assert_eq!(failed(&mut status, Failure::NoListener), VmState::Stale);
        assert_eq!(failed(&mut status, Failure::NoAgent), VmState::Unreachable);
        assert_eq!(failed(&mut status, Failure::NoListener), VmState::Stale);
    }

    #[test]
    fn a_new_instance_of_the_agent_is_another_incarnation() {
        let mut status = VmStatus::found(Timestamp::now());
        assert_eq!(status.answered(health("1"), Timestamp::now()), Incarnation::Same);
        assert_eq!(status.answered(health("1"), Timestamp::now()), Incarnation::Same);
        assert_eq!(status.answered(health("2"), Timestamp::now()), Incarnation::Changed);
    }

    #[test]
    fn the_pause_grows_to_its_bound_and_never_vanishes() {
        let mut status = VmStatus::found(Timestamp::now());
        let mut last = Duration::ZERO;
        for _ in 0..100 {
            failed(&mut status, Failure::NoAgent);
            let pause = status.pause(1.0);
            assert!(pause >= last && pause <= BACKOFF_MAX);
            assert!(status.pause(0.0) >= BACKOFF_FIRST / 2);
            last = pause;
        }
        assert_eq!(last, BACKOFF_MAX);
    }

    #[test]
    fn what_a_guest_says_of_itself_is_kept_only_up_to_a_bound() {
        let mut status = VmStatus::found(Timestamp::now());
        let mut huge = health("1");
        huge.hostname = "é".repeat(500_000);
        if let Some(agent) = &mut huge.agent {
            agent.features = vec!["f".repeat(10_000); 1000];
        }
        status.answered(huge, Timestamp::now());
        assert!(status.hostname.is_some_and(|name| name.len() <= KEPT_TEXT));
        assert!(status.agent.is_some_and(|agent| agent.features.len() == KEPT_FEATURES
            && agent.features.iter().all(|feature| feature.len() == KEPT_TEXT)));
    }
}
