//! Restore steps on a real kernel: what they change, and what a restore means for a pending network change.

use crate::guest::{Guest, both};
use crate::support::until;
use minions_proto::message::{
    EntropyBytes, Exec, HealthCheck, InstanceId, NetworkConfirm, ReadNetwork, RestoreOutcome,
    RestoreRequest, RestoreState, TokenCheck,
};
use minions_proto::{AgentError, ErrorCode};
use serde_json::json;

async fn instance(guest: &Guest) -> InstanceId {
    guest.agent.call(&HealthCheck {}).await.unwrap().agent.unwrap().instance_id
}

/// Returns a request for the next generation with these steps.
async fn request(guest: &Guest, steps: &[&str], required: &[&str]) -> RestoreRequest {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    RestoreRequest {
        parent: instance(guest).await,
        instance_id: "next".into(),
        entropy: EntropyBytes::try_from(vec![7; 32]).unwrap(),
        time_unix_ms: 0,
        steps: names(steps),
        required: names(required),
        hostname: None,
        network: None,
        hook_timeout_ms: None,
    }
}

/// Repeats the request until the steps have ended.
async fn finished(guest: &Guest, request: &RestoreRequest) -> RestoreOutcome {
    until("the steps have ended", async || {
        let outcome = guest.agent.call(request).await.unwrap();
        (outcome.state != RestoreState::Running).then_some(outcome)
    })
    .await
}

/// Returns the names of the steps and whether they succeeded.
fn steps(outcome: &RestoreOutcome) -> Vec<(&str, bool)> {
    outcome.steps.iter().map(|step| (step.step.as_str(), step.ok)).collect()
}

fn install(guest: &Guest, name: &str, script: &str) {
    let dir = "/etc/minions/restore.d";
    guest.sh(&format!(
        "mkdir -p {dir}; printf '#!/bin/sh\\n%s\\n' '{script}' >{dir}/{name}; chmod 755 {dir}/{name}"
    ));
}

#[tokio::test]
async fn a_change_that_waits_for_its_confirmation_is_rolled_back() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(600_000);
    let pending = guest.change(change).await.unwrap().pending.unwrap();
    let request = request(&guest, &["entropy"], &["entropy"]).await;
    let outcome = finished(&guest, &request).await;
    assert_eq!(steps(&outcome), [("entropy", true), ("network_rollback", true)]);
    guest.is_again(&before).await;
    assert_eq!(guest.journal(), "");
    let late = guest.agent.call(&NetworkConfirm { id: pending.id }).await.unwrap_err();
    assert_eq!(late.code, Some(ErrorCode::NetworkChangeGone));
    assert_eq!(guest.agent.call(&ReadNetwork {}).await.unwrap().pending, None);
}

#[tokio::test]
async fn hostname_machine_id_and_network_are_those_of_the_host() {
    let guest = Guest::start().await;
    guest.sh("echo 0123456789abcdef0123456789abcdef >/etc/machine-id; hostname parent;
        mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/dbus; cp /etc/machine-id /var/lib/dbus");
    let mut asked =
        request(&guest, &["network", "machine_id", "hostname", "entropy", "later"], &[]).await;
    asked.hostname = Some("clone-1".into());
    let network = json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.1" });
    asked.network = Some(serde_json::from_value(network).unwrap());
    let outcome = finished(&guest, &asked).await;
    let expected = [
        ("entropy", true),
        ("hostname", true),
        ("machine_id", true),
        ("network", true),
        ("later", false),
    ];
    assert_eq!(
        (outcome.state, steps(&outcome).as_slice()),
        (RestoreState::Done, &expected[..]),
        "{outcome:?}"
    );
    assert_eq!(guest.sh("hostname; cat /etc/hostname"), "clone-1\nclone-1\n");
    assert!(guest.sh("ip -4 -o addr show dev eth0").contains("10.0.0.2/16"));
    assert_ne!(guest.sh("cat /etc/machine-id").trim(), "0123456789abcdef0123456789abcdef");
    guest.sh("cmp /etc/machine-id /var/lib/dbus/machine-id");
    // Without new random numbers, a machine id could be another clone's. The same holds for what the host left out.
    let id = guest.sh("cat /etc/machine-id");
    let mut asked = request(&guest, &["machine_id", "hostname"], &[]).await;
    asked.instance_id = "third".into();
    let outcome = finished(&guest, &asked).await;
    assert_eq!(steps(&outcome), [("hostname", false), ("machine_id", false)], "{outcome:?}");
    assert_eq!((outcome.generation, guest.sh("cat /etc/machine-id")), (2, id));
}

#[tokio::test]
async fn requests_are_refused_until_the_required_hooks_have_succeeded() {
    let guest = Guest::start().await;
    let token = |token: &str| TokenCheck { vmm_token: token.parse().unwrap() };
    for _ in 0..2 {
        guest.agent.call(&token("first")).await.unwrap();
    }
    let exec = async || -> Result<(), AgentError> {
        let exec = Exec { command: "true".into(), args: Vec::new(), timeout_ms: None };
        guest.agent.call(&exec).await.map(drop)
    };
    exec().await.unwrap();
    let health = guest.agent.call(&token("second")).await.unwrap().agent.unwrap();
    assert_eq!((health.restore, health.probe_count), (Some(RestoreState::Required), Some(3)));
    assert_eq!(exec().await.unwrap_err().code, Some(ErrorCode::Restoring));

    install(&guest, "10-waits", "until [ -e /run/go ]; do sleep 0.01; done");
    install(&guest, "20-fails", "echo broken >&2; exit 3");
    install(&guest, "30-hangs", "exec sleep 86400");
    install(&guest, "40-tells", "echo $MINIONS_GENERATION $MINIONS_INSTANCE_ID");
    let mut asked = request(&guest, &["hooks"], &["hooks"]).await;
    asked.hook_timeout_ms = Some(20_000);
    assert_eq!(guest.agent.call(&asked).await.unwrap().state, RestoreState::Running);
    assert_eq!(exec().await.unwrap_err().code, Some(ErrorCode::Restoring));
    let health = guest.agent.call(&HealthCheck {}).await.unwrap().agent.unwrap();
    assert_eq!(
        (health.restore, health.instance_id.as_str()),
        (Some(RestoreState::Running), "next")
    );
    guest.sh("touch /run/go; rm /etc/minions/restore.d/30-hangs");
    let outcome = finished(&guest, &asked).await;
    assert_eq!(outcome.state, RestoreState::Failed, "{outcome:?}");
    assert!(outcome.steps[1].detail.contains("exited with status 3: broken"), "{outcome:?}");
    assert_eq!(exec().await.unwrap_err().code, Some(ErrorCode::Restoring));

    // The same request again runs the steps again, in the same generation.
    install(&guest, "20-fails", "exec sleep 86400");
    asked.hook_timeout_ms = Some(300);
    let outcome = finished(&guest, &asked).await;
    assert!(outcome.steps[1].detail == "was ended at its deadline of 300 ms", "{outcome:?}");
    guest.sh("rm /etc/minions/restore.d/20-fails");
    let outcome = finished(&guest, &asked).await;
    assert_eq!((outcome.state, outcome.generation), (RestoreState::Done, 1), "{outcome:?}");
    let last = outcome.steps.last().unwrap();
    assert_eq!(
        (last.step.as_str(), last.detail.as_str()),
        ("hooks/40-tells", "exited with status 0: 1 next")
    );
    exec().await.unwrap();
}
