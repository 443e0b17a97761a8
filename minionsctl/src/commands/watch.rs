//! `minionsctl watch [VM]`: prints events as they happen, until it is interrupted.
//!
//! Reconnects after a restart of minionsd, and reports events that may have been missed.

use super::context::Context;
use crate::client::{DaemonClient, EventMessage};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use minions_api::VmName;
use minions_api::event::{Event, Reset};
use minions_api::vm::VmState;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest time that minionsd may be unavailable.
const ABSENCE: Duration = Duration::from_secs(60);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: Option<&VmName>,
) -> Result<ExitStatus, Failure> {
    let mut last = None;
    let mut seen = false;
    let mut missed: Option<Instant> = None;
    loop {
        let failure = match follow(context, client, vm, &mut last).await {
            FollowEnd::Ended => {
                (seen, missed) = (true, None);
                client.broke_off()
            }
            FollowEnd::Broke(failure) => {
                (seen, missed) = (true, None);
                failure
            }
            FollowEnd::Refused(failure) => failure,
        };
        let since = *missed.get_or_insert_with(Instant::now);
        if !seen || !failure.is_transient() || since.elapsed() > ABSENCE {
            return Err(failure);
        }
        sleep(PAUSE).await;
    }
}

/// End of one stream of events.
enum FollowEnd {
    /// The stream could not be opened.
    Refused(Failure),
    /// minionsd ended the stream.
    Ended,
    /// The stream broke, or an event could not be printed.
    Broke(Failure),
}

async fn follow(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: Option<&VmName>,
    last: &mut Option<String>,
) -> FollowEnd {
    let mut events = match client.events(vm, last.clone()).await {
        Ok(events) => events,
        Err(failure) => return FollowEnd::Refused(failure),
    };
    loop {
        let message = events.next().await;
        *last = events.last();
        let shown = match message {
            Ok(Some(EventMessage::Event(event))) => show(context, &event),
            Ok(Some(EventMessage::Reset(reset))) => {
                remark(context, &reset);
                Ok(())
            }
            Ok(None) => return FollowEnd::Ended,
            Err(failure) => return FollowEnd::Broke(failure),
        };
        if let Err(failure) = shown {
            return FollowEnd::Broke(failure);
        }
    }
}

fn show(context: &Context<'_>, event: &Event) -> Result<(), Failure> {
    if context.printer.is_structured() {
        return context.printer.json_line(event);
    }
    context.printer.heading(&in_words(event))
}

fn in_words(event: &Event) -> String {
    let mut line = format!("{}  {}  {}", event.at, event.vm, event.kind.as_str());
    let states = [event.before, event.state].map(|state| state.map(VmState::as_str));
    if let ([Some(before), Some(after)], Some(cause)) = (states, event.cause) {
        line += &format!("  {before} -> {after} ({})", cause.as_str());
    }
    if let Some(parent) = &event.parent {
        let name = event.parent_vm.as_ref().map(|name| format!(" ({name})"));
        line += &format!("  parent {parent}{}", name.unwrap_or_default());
    }
    if let Some(reason) = &event.reason {
        line += &format!(": {}", reason.message);
    }
    if let Some(configured) = event.configured {
        line += &format!("  {}", configured.as_str());
    }
    let condition = event.configuration.as_ref();
    if let Some(reason) = condition.and_then(|condition| condition.reason.as_ref()) {
        line += &format!(": {reason}");
    }
    line
}

fn remark(context: &Context<'_>, reset: &Reset) {
    let missed = reset.missed.map_or_else(|| "some".to_owned(), |missed| missed.to_string());
    context
        .printer
        .remark(&format!("{missed} events were missed; `minionsctl ls` shows the current states"));
}
