//! Tests of the status that probes and calls change.

use super::super::backoff::{BACKOFF_FIRST, BACKOFF_MAX};
use super::*;
use minions_proto::message::Features;

fn found() -> VmStatus {
    VmStatus::found(SocketId::default(), Timestamp::now())
}

fn health(instance: &str) -> Health {
    let agent = AgentInfo {
        name: "a".into(),
        version: "1".into(),
        protocol: 2,
        features: Features::default(),
        boot_id: "boot".into(),
        instance_id: instance.into(),
        allowed: None,
        generation: None,
        parent_instance_id: None,
        probe_count: None,
        restore: None,
    };
    Health {
        uptime_secs: 1,
        hostname: "guest".into(),
        agent: Some(agent),
        time_unix_ms: None,
        quiesced: None,
        network_changes: None,
    }
}

/// Returns the reason why calls are refused, if they are.
fn refusal(status: &VmStatus) -> Option<Failure> {
    match status.call_access() {
        CallAccess::Refused(reason) => Some(reason.failure),
        CallAccess::Undecided | CallAccess::Allowed => None,
    }
}

fn failed(status: &mut VmStatus, failure: Failure) -> VmState {
    status.failed(failure, String::new(), Timestamp::now());
    status.state
}

#[test]
fn three_failures_make_a_ready_vm_unreachable_and_one_answer_brings_it_back() {
    let mut status = found();
    status.answered(health("1"), Timestamp::now());
    assert_eq!(failed(&mut status, Failure::AgentSilent), VmState::Ready);
    assert_eq!(failed(&mut status, Failure::AgentSilent), VmState::Ready);
    assert_eq!(failed(&mut status, Failure::AgentSilent), VmState::Unreachable);
    assert!(refusal(&status).is_some());
    assert_eq!(status.cause, Cause::ProbesFailed);
    status.answered(health("1"), Timestamp::now());
    assert_eq!((status.state, status.failed_probes), (VmState::Ready, 0));
    assert!(refusal(&status).is_none());
    assert!(status.last_error.is_some() && status.reason.is_none());
}

#[test]
fn calls_wait_for_the_first_probe_and_then_know_the_agent() {
    let mut status = found();
    let for_calls = status.for_calls();
    assert!(matches!(for_calls.access, CallAccess::Undecided) && for_calls.info.is_none());
    status.answered(health("1"), Timestamp::now());
    let for_calls = status.for_calls();
    assert!(matches!(for_calls.access, CallAccess::Allowed));
    assert_eq!(for_calls.info, status.agent);
}

#[test]
fn after_failed_calls_further_ones_are_refused_until_a_probe_is_answered() {
    let mut status = found();
    status.answered(health("1"), Timestamp::now());
    let moved = status.calls_failed(Failure::AgentSilent, Timestamp::now()).unwrap();
    assert_eq!((moved.after, moved.cause), (VmState::Unreachable, Cause::CallsFailed));
    assert_eq!(refusal(&status), Some(Failure::AgentSilent));
    status.answered(health("1"), Timestamp::now());
    assert!(refusal(&status).is_none());
}

#[test]
fn a_probe_that_minionsd_cannot_make_says_nothing_about_the_vm() {
    let mut status = found();
    for _ in 0..9 {
        assert_eq!(failed(&mut status, Failure::DaemonExhausted), VmState::Connecting);
        assert!(refusal(&status).is_none() && status.pause(1.0) <= BACKOFF_FIRST);
    }
    assert_eq!(failed(&mut status, Failure::AgentSilent), VmState::Connecting);
    assert_eq!(status.failed_probes, 1);
    assert!(refusal(&status).is_some());
}

#[test]
fn an_answer_is_compared_with_the_previous_agent() {
    let mut status = found();
    let mut answered = |boot: &str, instance: &str| {
        let mut health = health(instance);
        if let Some(agent) = &mut health.agent {
            agent.boot_id = boot.into();
        }
        status.answered(health, Timestamp::now()).0
    };
    assert_eq!(answered("boot", "1"), AgentIdentity::Same);
    assert_eq!(answered("boot", "1"), AgentIdentity::Same);
    assert_eq!(answered("boot", "2"), AgentIdentity::Restarted);
    assert_eq!(answered("again", "3"), AgentIdentity::Rebooted);
}

#[test]
fn a_shorter_uptime_of_a_base_agent_means_a_reboot() {
    let mut status = found();
    let mut answered = |uptime_secs, agent: Option<AgentInfo>| {
        let health = Health {
            uptime_secs,
            hostname: "guest".into(),
            agent,
            time_unix_ms: None,
            quiesced: None,
            network_changes: None,
        };
        status.answered(health, Timestamp::now()).0
    };
    assert_eq!(answered(10, None), AgentIdentity::Same);
    assert_eq!(answered(15, None), AgentIdentity::Same);
    assert_eq!(answered(2, None), AgentIdentity::Rebooted);
    assert_eq!(answered(5, health("new").agent), AgentIdentity::Restarted);
    assert_eq!(answered(6, None), AgentIdentity::Rebooted);
}

#[test]
fn the_backoff_grows_to_its_limit_and_is_never_zero() {
    let mut status = found();
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
