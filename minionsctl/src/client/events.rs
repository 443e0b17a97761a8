//! `GET /events`: Server-Sent Events.

use super::daemon_client::DaemonClient;
use super::event_parser::{EventParser, EventTooLong, RawEvent};
use super::limits::MIB;
use super::lines::BodyLines;
use crate::failure::Failure;
use minions_api::VmName;
use minions_api::event::{Event, RESET, Reset, SSE};
use reqwest::header::ACCEPT;

/// Maximum length of a line and of an event, in bytes. An event has a few hundred.
const MAX_LEN: usize = MIB;

/// Message of an event stream.
#[derive(Debug)]
pub(crate) enum EventMessage {
    /// An event.
    Event(Box<Event>),
    /// Events are missing at this point.
    Reset(Reset),
}

/// Open stream of events.
#[derive(Debug)]
pub(crate) struct EventStream<'a> {
    client: &'a DaemonClient,
    lines: BodyLines<'a>,
    parser: EventParser,
}

impl DaemonClient {
    /// Follows the events of `vm`, or of all VMs without it, starting after the event with the id `last`.
    pub(crate) async fn events(
        &self,
        vm: Option<&VmName>,
        last: Option<String>,
    ) -> Result<EventStream<'_>, Failure> {
        let query = vm.map_or_else(String::new, |vm| format!("?vm={vm}"));
        let mut request = self.http.get(format!("{}/events{query}", self.base)).header(ACCEPT, SSE);
        if let Some(last) = &last {
            request = request.header("Last-Event-ID", last);
        }
        let lines = self.body_lines(request, MAX_LEN).await?;
        Ok(EventStream { client: self, lines, parser: EventParser::new(last, MAX_LEN) })
    }
}

impl EventStream<'_> {
    /// Returns the id to resume from: that of the last complete event.
    pub(crate) fn last(&self) -> Option<String> {
        self.parser.last_id().map(str::to_owned)
    }

    /// Waits for the next message; `None` when minionsd ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<EventMessage>, Failure> {
        while let Some(line) = self.lines.next().await? {
            match self.parser.line(&line) {
                Ok(None) => {}
                Ok(Some(event)) => return self.message(&event).map(Some),
                Err(EventTooLong) => {
                    let what = format!("an event is longer than {} MiB", MAX_LEN / MIB);
                    return Err(self.client.not_minionsd(what));
                }
            }
        }
        Ok(None)
    }

    fn message(&self, event: &RawEvent) -> Result<EventMessage, Failure> {
        let message = if event.kind == RESET {
            serde_json::from_str(&event.data).map(EventMessage::Reset)
        } else {
            serde_json::from_str(&event.data).map(|event| EventMessage::Event(Box::new(event)))
        };
        message.map_err(|error| self.client.not_minionsd(error.to_string()))
    }
}
