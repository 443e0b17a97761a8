//! A change that stays only if the host confirms it.

use crate::guest::{Guest, RUN, both};
use crate::support::{self, RunningAgent, until};
use minions_proto::ErrorCode;
use minions_proto::message::{NetworkConfirm, ReadNetwork};
use serde_json::{Value, json};
use std::process::Command;

#[tokio::test]
async fn a_host_that_goes_silent_gets_the_old_network_back() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(1000);
    let changed = guest.change(change).await.unwrap();
    assert!(changed.pending.unwrap().expires_in_ms <= 1000);
    guest.is_again(&before).await;
    until("the journal is gone", async || guest.journal().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_change_that_is_confirmed_stays() {
    let (guest, _) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(60_000);
    let pending = guest.change(change.clone()).await.unwrap().pending.unwrap();
    // Whoever asks again has lost the reply, and gets it; anything else waits.
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

/// A second agent in the same namespaces, after the first was killed.
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
async fn an_agent_that_starts_anew_goes_on_waiting_for_the_confirmation() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(8_000);
    let pending = guest.change(change).await.unwrap().pending.unwrap();
    // The first one is stopped, not gone: it keeps the namespaces.
    support::stop(guest.agent.pid());
    let next = succeed(&guest).await;
    let read = next.call(&ReadNetwork {}).await.unwrap();
    assert_eq!(read.pending.map(|pending| pending.id), Some(pending.id));
    guest.is_again(&before).await;
}

#[tokio::test]
async fn an_agent_that_starts_in_the_middle_of_a_change_puts_it_back() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(60_000);
    guest.change(change).await.unwrap();
    support::stop(guest.agent.pid());
    // As the journal is while steps are made.
    let text = guest.sh(&format!("cat {RUN}"));
    let mut journal: Value = serde_json::from_str(&text).unwrap();
    journal["pending"] = Value::Null;
    std::fs::write(format!("/proc/{}/root{RUN}", guest.agent.pid()), journal.to_string()).unwrap();
    let next = succeed(&guest).await;
    guest.is_again(&before).await;
    assert_eq!(next.call(&ReadNetwork {}).await.unwrap().pending, None);
    assert_eq!(guest.journal(), "");
}
