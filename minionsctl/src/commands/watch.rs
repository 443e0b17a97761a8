//! `minionsctl watch [VM]`: what happens to VMs, as it happens, until it is interrupted.
//!
//! When minionsd is restarted it comes back by itself, and says so if something may have been missed.

use super::Context;
use crate::client::{Client, Told};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Printer;
use minions_api::VmName;
use minions_api::event::{Event, Reset};
use minions_api::vm::VmState;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long minionsd may be away, and how often to look for it.
const ABSENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(
    context: &Context<'_>,
    client: &Client,
    vm: Option<&VmName>,
) -> Result<ExitStatus, Failure> {
    let (mut last, mut seen) = (None, false);
    let mut missed: Option<Instant> = None;
    loop {
        let failure = match follow(context, client, vm, &mut last).await {
            Followed::Ended => {
                (seen, missed) = (true, None);
                client.broke_off()
            }
            Followed::Broke(failure) => {
                (seen, missed) = (true, None);
                failure
            }
            Followed::Refused(failure) => failure,
        };
        let since = *missed.get_or_insert_with(Instant::now);
        if !seen || !failure.is_transient() || since.elapsed() > ABSENCE {
            return Err(failure);
        }
        sleep(PAUSE).await;
    }
}

/// How one stream of events was.
enum Followed {
    /// There was none.
    Refused(Failure),
    /// minionsd ended it.
    Ended,
    /// It broke, or can't be shown.
    Broke(Failure),
}

async fn follow(
    context: &Context<'_>,
    client: &Client,
    vm: Option<&VmName>,
    last: &mut Option<String>,
) -> Followed {
    let mut events = match client.events(vm, last.clone()).await {
        Ok(events) => events,
        Err(failure) => return Followed::Refused(failure),
    };
    loop {
        let told = events.next().await;
        *last = events.last();
        let shown = match told {
            Ok(Some(Told::Event(event))) => show(context, &event),
            Ok(Some(Told::Reset(reset))) => {
                remark(context, &reset);
                Ok(())
            }
            Ok(None) => return Followed::Ended,
            Err(failure) => return Followed::Broke(failure),
        };
        if let Err(failure) = shown {
            return Followed::Broke(failure);
        }
    }
}

fn show(context: &Context<'_>, event: &Event) -> Result<(), Failure> {
    if context.printer.is_json() {
        return Printer::json_line(event);
    }
    context.printer.heading(&in_words(event))
}

fn in_words(event: &Event) -> String {
    let mut line = format!("{}  {}  {}", event.at, event.vm, event.kind.as_str());
    let states = [event.before, event.state].map(|state| state.map(VmState::as_str));
    if let ([Some(before), Some(after)], Some(cause)) = (states, event.cause) {
        line += &format!("  {before} -> {after} ({})", cause.as_str());
    }
    if let Some(reason) = &event.reason {
        line += &format!(": {}", reason.message);
    }
    line
}

fn remark(context: &Context<'_>, reset: &Reset) {
    let missed = reset.missed.map_or_else(|| "some".to_owned(), |missed| missed.to_string());
    context.printer.remark(&format!(
        "{missed} events are missing here; `minionsctl ls` tells how things stand"
    ));
}
