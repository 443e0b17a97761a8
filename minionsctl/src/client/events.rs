//! `GET /events`: Server-Sent Events with the fields `id`, `event` and `data`, one line each.

use super::Client;
use crate::failure::Failure;
use bytes::BytesMut;
use minions_api::VmName;
use minions_api::event::{Event, RESET, Reset, SSE};
use reqwest::Response;
use reqwest::header::ACCEPT;
use std::time::Duration;
use tokio::time::timeout;

/// Silence after which the daemon counts as gone. minionsd sends a comment every 10 s.
const SILENCE: Duration = Duration::from_secs(30);

/// Longest accepted line, in bytes. An event has a few hundred.
const MAX_LINE: usize = 1024 * 1024;

/// Message of an event stream.
#[derive(Debug)]
pub(crate) enum Told {
    /// An event.
    Event(Box<Event>),
    /// Events are missing at this point.
    Reset(Reset),
}

/// Open stream of events.
#[derive(Debug)]
pub(crate) struct Events<'a> {
    client: &'a Client,
    response: Response,
    buffer: BytesMut,
    /// Field `event` of the message being read.
    kind: String,
    /// Field `data` of the message being read.
    data: String,
    /// Last `id`, to resume from.
    last: Option<String>,
}

impl Client {
    /// Follows the events, of `vm` only if it is given, starting after the event with the id `last`.
    pub(crate) async fn events(
        &self,
        vm: Option<&VmName>,
        last: Option<String>,
    ) -> Result<Events<'_>, Failure> {
        let query = vm.map_or_else(String::new, |vm| format!("?vm={vm}"));
        let mut request = self.http.get(format!("{}/events{query}", self.base)).header(ACCEPT, SSE);
        if let Some(last) = &last {
            request = request.header("Last-Event-ID", last);
        }
        let response = timeout(SILENCE, request.send())
            .await
            .map_err(|_| self.silent())?
            .map_err(|error| self.no_response(error))?;
        if !response.status().is_success() {
            return Err(self.problem(response).await);
        }
        Ok(Events {
            client: self,
            response,
            buffer: BytesMut::new(),
            kind: String::new(),
            data: String::new(),
            last,
        })
    }
}

impl Events<'_> {
    /// Returns the id to resume from.
    pub(crate) fn last(&self) -> Option<String> {
        self.last.clone()
    }

    /// Waits for the next message; `None` when minionsd ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Told>, Failure> {
        loop {
            let Some(line) = self.line().await? else { return Ok(None) };
            match line.split_once(':') {
                None if line.is_empty() && !self.data.is_empty() => {
                    return self.message().map(Some);
                }
                Some(("id", id)) => self.last = Some(id.trim_start().to_owned()),
                Some(("event", kind)) => kind.trim_start().clone_into(&mut self.kind),
                Some(("data", data)) => data.trim_start().clone_into(&mut self.data),
                // A comment, or a field of a later version.
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Result<Told, Failure> {
        let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        let message = if kind == RESET {
            serde_json::from_str(&data).map(Told::Reset)
        } else {
            serde_json::from_str(&data).map(|event| Told::Event(Box::new(event)))
        };
        message.map_err(|error| self.client.not_minionsd(error.to_string()))
    }

    /// Reads the next line, without its end.
    async fn line(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()));
            }
            let chunk = timeout(SILENCE, self.response.chunk())
                .await
                .map_err(|_| self.client.silent())?
                .map_err(|error| self.client.no_response(error))?;
            match chunk {
                Some(chunk) if self.buffer.len() + chunk.len() <= MAX_LINE => {
                    self.buffer.extend_from_slice(&chunk);
                }
                Some(_) => {
                    return Err(self.client.not_minionsd("a line is longer than 1 MiB".into()));
                }
                None => return Ok(None),
            }
        }
    }
}
