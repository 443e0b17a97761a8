//! `GET /events`: Server-Sent Events, of which minionsd uses `id`, `event` and `data` in one line each.

use super::Client;
use crate::failure::Failure;
use bytes::BytesMut;
use minions_api::VmName;
use minions_api::event::{Event, RESET, Reset, SSE};
use reqwest::Response;
use reqwest::header::ACCEPT;
use std::time::Duration;
use tokio::time::timeout;

/// minionsd says every 10 s that it is alive.
const SILENCE: Duration = Duration::from_secs(30);

/// The longest line. An event has some hundred bytes.
const MAX_LINE: usize = 1024 * 1024;

/// What a stream says.
#[derive(Debug)]
pub(crate) enum Told {
    /// Something happened.
    Event(Box<Event>),
    /// Something is missing here.
    Reset(Reset),
}

/// A stream of events under way.
#[derive(Debug)]
pub(crate) struct Events<'a> {
    client: &'a Client,
    response: Response,
    buffer: BytesMut,
    /// Of the message under way.
    kind: String,
    data: String,
    /// Where to come back to.
    last: Option<String>,
}

impl Client {
    /// Follows what happens, to `vm` if that is given, from behind the event with the id `last` on.
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
        let (kind, data) = (String::new(), String::new());
        Ok(Events { client: self, response, buffer: BytesMut::new(), kind, data, last })
    }
}

impl Events<'_> {
    /// Where to come back to.
    pub(crate) fn last(&self) -> Option<String> {
        self.last.clone()
    }

    /// The next message; `None` when minionsd ends the stream.
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
                // A comment, or what a later version says beside.
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Result<Told, Failure> {
        let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        let told = if kind == RESET {
            serde_json::from_str(&data).map(Told::Reset)
        } else {
            serde_json::from_str(&data).map(|event| Told::Event(Box::new(event)))
        };
        told.map_err(|error| self.client.not_minionsd(error.to_string()))
    }

    /// The next line, without its end.
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
                Some(_) => return Err(self.client.not_minionsd("a line never ends".into())),
                None => return Ok(None),
            }
        }
    }
}
