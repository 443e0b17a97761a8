//! Reader of `GET /events`: checks that no VM is reported as gone while its VMM runs, and that reboots are reported.

use crate::member::VmModel;
use crate::state::SoakState;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Pause between the end of a stream and the next one. The client's deadline ends each stream.
const PAUSE: Duration = Duration::from_millis(50);

/// Follows the events until `stop` is cancelled.
pub(super) async fn run(world: Arc<SoakState>, stop: CancellationToken) {
    let mut last = None;
    while !stop.is_cancelled() {
        tokio::select! {
            () = follow(&world, &mut last) => {}
            () = stop.cancelled() => return,
        }
        sleep(PAUSE).await;
    }
}

/// Follows one stream to its end, starting after the event with the id `last`.
async fn follow(world: &SoakState, last: &mut Option<String>) {
    let mut request = world.http.get(SoakState::url("/events"));
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last.as_str());
    }
    let Ok(mut response) = request.send().await else { return };
    let mut text = String::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        text.push_str(&String::from_utf8_lossy(&chunk));
        while let Some((message, rest)) = text.split_once("\n\n") {
            judge(world, message, last);
            text = rest.to_owned();
        }
    }
}

fn judge(world: &SoakState, message: &str, last: &mut Option<String>) {
    let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
    if let Some(id) = field("id: ") {
        *last = Some(id.to_owned());
    }
    let Some(kind) = field("event: ") else { return };
    if kind == "reset" {
        world.journal.event("events are missing");
        world.members.iter().for_each(|member| member.excuse());
        return;
    }
    world.journal.answer(&format!("event {kind}"));
    let event: Value =
        field("data: ").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
    let named = |member: &&Arc<VmModel>| event["vm"] == member.name.as_str();
    let Some(member) = world.members.iter().find(named) else {
        return world.journal.violation(format!("an event belongs to no VM: {event}"));
    };
    let wrong = |why: &str| world.journal.violation(format!("{}: {kind} {why}", member.name));
    match kind {
        // Events arrive immediately, so none belongs to an earlier fault.
        "vm.found" | "vm.gone" | "vm.replaced" if !member.may_have_been_gone(Instant::now()) => {
            wrong("is reported for a VM whose VMM runs");
        }
        "vm.rebooted" | "agent.restarted" => {
            let life = event["incarnation"]["instance_id"].as_str();
            let life = life.map(|life| life.rsplit(' ').next().and_then(|life| life.parse().ok()));
            match life {
                Some(life) if !life.is_some_and(|life| member.knows(life)) => {
                    wrong(&format!("is reported for a life that the VM never had: {event}"));
                }
                life if kind == "vm.rebooted" => member.told(life.flatten()),
                _ => {}
            }
        }
        _ => {}
    }
}
