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

#[test]
fn a_vm_that_answers_is_probed_every_5_seconds_with_10_percent_of_jitter() {
    let mut status = found();
    status.answered(health("1"), Timestamp::now());
    let pauses = [0.0, 0.5, 1.0].map(|jitter| status.pause(jitter).as_millis());
    assert_eq!(pauses, [4_500, 5_000, 5_500]);
}

/// Returns the status of a ready VM whose VMM is this process.
fn ready_on_running_vmm() -> VmStatus {
    let vmm = ProcessId { pid: std::process::id(), started: None, name: None };
    let mut status = VmStatus { vmm: Some(vmm), ..found() };
    status.answered(health("1"), Timestamp::now());
    status
}

#[test]
fn only_a_guest_that_answered_before_and_is_silent_now_counts_as_paused_or_hung() {
    let reason = |mut status: VmStatus, failure| {
        failed(&mut status, failure);
        status.reason.map(|reason| reason.failure)
    };
    for silent in [Failure::NoHandshake, Failure::AgentSilent] {
        assert_eq!(reason(ready_on_running_vmm(), silent), Some(Failure::PausedOrHung));
        let never_seen = VmStatus { vmm: ready_on_running_vmm().vmm, ..found() };
        assert_eq!(reason(never_seen, silent), Some(silent));
        let unknown_vmm = VmStatus { vmm: None, ..ready_on_running_vmm() };
        assert_eq!(reason(unknown_vmm, silent), Some(silent));
    }
    assert_eq!(reason(ready_on_running_vmm(), Failure::NoAgent), Some(Failure::NoAgent));
}

#[test]
fn the_next_boot_ends_the_reboot_that_explains_failures() {
    let mut status = ready_on_running_vmm();
    status.asked_to_end(EndingKind::Reboot);
    let reason = |status: &mut VmStatus| {
        failed(status, Failure::NoAgent);
        status.reason.as_ref().map(|reason| reason.failure)
    };
    assert_eq!(reason(&mut status), Some(Failure::Rebooting));
    // The boot that ends may still answer.
    status.answered(health("1"), Timestamp::now());
    assert_eq!(reason(&mut status), Some(Failure::Rebooting));
    let mut next = health("2");
    next.agent.as_mut().unwrap().boot_id = "next".into();
    status.answered(next, Timestamp::now());
    assert_eq!(reason(&mut status), Some(Failure::NoAgent));
}

#[test]
fn a_missing_listener_is_that_of_a_new_socket_only_after_the_vmm_has_created_one() {
    let mut status = ready_on_running_vmm();
    status.asked_to_end(EndingKind::Reboot);
    assert_eq!(failed(&mut status, Failure::NoListener), VmState::Stale);

    let mut status = ready_on_running_vmm();
    for socket in [None, Some(SocketId::default())] {
        status.socket_changed(socket, Timestamp::now());
    }
    assert_eq!(failed(&mut status, Failure::NoListener), VmState::Unreachable);
    let reason = status.reason.as_ref().map(|reason| (reason.failure, reason.layer));
    assert_eq!(reason, Some((Failure::Rebooting, Some(Failure::NoSocket))));
    status.vmm = None;
    assert_eq!(failed(&mut status, Failure::NoListener), VmState::Stale);
}
