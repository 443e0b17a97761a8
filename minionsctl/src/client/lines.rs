//! Streamed bodies with one JSON object per line (NDJSON).

use super::Client;
use crate::failure::Failure;
use bytes::BytesMut;
use minions_api::exec::NDJSON;
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::time::Duration;
use tokio::time::timeout;

/// Silence after which the daemon counts as gone. minionsd sends a heartbeat every 5 s, but may wait for an agent
/// before the first line.
const SILENCE: Duration = Duration::from_secs(30);

/// Longest accepted line, in bytes: a collected result with both outputs, as escaped text and as base64. Bounds the
/// memory for a peer that never ends its line.
const MAX_LINE: usize = 1024 * 1024 * 1024;

/// Streamed body.
#[derive(Debug)]
pub(crate) struct Lines<'a, T> {
    client: &'a Client,
    response: Response,
    buffer: BytesMut,
    /// Length of the part of the buffer that is known to have no line end.
    seen: usize,
    of: PhantomData<fn() -> T>,
}

impl Client {
    /// Sends `GET path`, and returns the body line by line.
    pub(crate) async fn get_lines<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Lines<'_, T>, Failure> {
        self.lines(self.http.request(Method::GET, format!("{}{path}", self.base))).await
    }

    /// Sends `POST path` with a JSON body, and returns the answer line by line.
    pub(crate) async fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Lines<'_, T>, Failure> {
        let url = format!("{}{path}", self.base);
        self.lines(self.http.request(Method::POST, url).json(body)).await
    }

    async fn lines<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<Lines<'_, T>, Failure> {
        let response = timeout(SILENCE, request.header(ACCEPT, NDJSON).send())
            .await
            .map_err(|_| self.silent())?
            .map_err(|error| self.no_response(error))?;
        if !response.status().is_success() {
            return Err(self.problem(response).await);
        }
        let buffer = BytesMut::new();
        Ok(Lines { client: self, response, buffer, seen: 0, of: PhantomData })
    }

    pub(super) fn silent(&self) -> Failure {
        Failure::Silent { host: self.host.clone() }
    }
}

impl<T: DeserializeOwned> Lines<'_, T> {
    /// Waits for the next line; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Failure> {
        loop {
            let fresh = self.buffer.get(self.seen..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.seen + end + 1);
                self.seen = 0;
                let value = serde_json::from_slice(&line);
                return value
                    .map(Some)
                    .map_err(|error| self.client.not_minionsd(error.to_string()));
            }
            self.seen = self.buffer.len();
            let chunk = timeout(SILENCE, self.response.chunk())
                .await
                .map_err(|_| self.client.silent())?
                .map_err(|error| self.client.no_response(error))?;
            match chunk {
                Some(chunk) if self.buffer.len() + chunk.len() <= MAX_LINE => {
                    self.buffer.extend_from_slice(&chunk);
                }
                Some(_) => {
                    return Err(self.client.not_minionsd("a line is longer than 1 GiB".into()));
                }
                None => return Ok(None),
            }
        }
    }
}
