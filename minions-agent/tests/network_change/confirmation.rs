//! Changes that are kept only if the host confirms them.

use crate::guest::{Guest, RUN, both};
use crate::support::{self, RunningAgent, until};
use minions_proto::ErrorCode;
use minions_proto::message::{NetworkConfirm, ReadNetwork};
use serde_json::{Value, json};
use std::process::Command;

#[tokio::test]
async fn without_a_confirmation_the_old_network_is_restored() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(1000);
    let changed = guest.change(change).await.unwrap();
    assert!(changed.pending.unwrap().expires_in_ms <= 1000);
    guest.is_again(&before).await;
    until("the journal is gone", async || guest.journal().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_confirmed_change_is_kept() {
    let (guest, _) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(60_000);
    let pending = guest.change(change.clone()).await.unwrap().pending.unwrap();
    // The same request again gets the same reply; a different one is refused.
    let again = guest.change(change).await.unwrap();
    assert_eq!(again.pending.unwrap().id, pending.id);
    let other = guest.change(both()).await.unwrap_err();
    assert_eq!(other.code, Some(ErrorCode::NetworkPending), "{other:?}");
    let read = guest.agent.call(&ReadNetwork {}).await.unwrap();
    assert_eq!(read.pending.unwrap().id, pending.id);
    let wrong = guest.agent.call(&NetworkConfirm { id: "net-0".into() }).await.unwrap_err();
    assert_eq!(wrong.code, Some(ErrorCode::NetworkChangeGone));
    for _ in 0..2 {
        guest.agent.call(&NetworkConfirm { id: pending.id.clone() }).await.unwrap();
    }
    assert_eq!((guest.journal().as_str(), guest.sh("hostname").as_str()), ("", "web-1\n"));
    assert_eq!(guest.change(both()).await.unwrap().changed, Some(false));
}

/// Starts a second agent in the namespaces of the first one.
async fn succeed(guest: &Guest) -> RunningAgent {
    let script = format!(
        "exec nsenter --net=/proc/{0}/ns/net --mount=/proc/{0}/ns/mnt --uts=/proc/{0}/ns/uts -- \"$0\" \
         --log-level error --listen \"$1\"",
        guest.agent.pid()
    );
    RunningAgent::with(|listen| {
        let mut command = Command::new("sh");
        command.args(["-c", &script, support::BINARY, listen]);
        command
    })
    .await
}

#[tokio::test]
async fn a_restarted_agent_continues_to_wait_for_the_confirmation() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(8_000);
    let pending = guest.change(change).await.unwrap().pending.unwrap();
    // The first agent is stopped, not killed: it keeps the namespaces alive.
    support::stop(guest.agent.pid());
    let next = succeed(&guest).await;
    let read = next.call(&ReadNetwork {}).await.unwrap();
    assert_eq!(read.pending.map(|pending| pending.id), Some(pending.id));
    guest.is_again(&before).await;
}

#[tokio::test]
async fn a_restarted_agent_undoes_an_unfinished_change() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(60_000);
    guest.change(change).await.unwrap();
    support::stop(guest.agent.pid());
    // The journal's content while steps are made.
    let text = guest.sh(&format!("cat {RUN}"));
    let mut journal: Value = serde_json::from_str(&text).unwrap();
    journal["pending"] = Value::Null;
    std::fs::write(format!("/proc/{}/root{RUN}", guest.agent.pid()), journal.to_string()).unwrap();
    let next = succeed(&guest).await;
    guest.is_again(&before).await;
    assert_eq!(next.call(&ReadNetwork {}).await.unwrap().pending, None);
    assert_eq!(guest.journal(), "");
}
