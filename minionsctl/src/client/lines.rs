//! Streamed bodies: lines, and NDJSON with one JSON object per line.

use super::daemon_client::DaemonClient;
use super::limits::{MAX_JSON, MIB};
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
use tokio_util::codec::{Decoder, LinesCodec, LinesCodecError};

/// Silence after which the connection is considered lost. minionsd sends a heartbeat every 5 s in NDJSON, and a comment
/// every 10 s among events, but before the first line it may wait for an agent.
const SILENCE: Duration = Duration::from_secs(30);

/// Lines of a streamed body. At most one line and one chunk of the connection are in memory, so a server that never
/// ends a line cannot fill the memory.
#[derive(Debug)]
pub(super) struct BodyLines<'a> {
    client: &'a DaemonClient,
    response: Response,
    buffer: BytesMut,
    codec: LinesCodec,
}

/// Streamed body with one `T` per line.
#[derive(Debug)]
pub(crate) struct JsonLines<'a, T> {
    lines: BodyLines<'a>,
    item: PhantomData<fn() -> T>,
}

impl DaemonClient {
    /// Sends `GET path`, and returns the body line by line.
    pub(crate) async fn get_lines<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<JsonLines<'_, T>, Failure> {
        self.json_lines(self.http.request(Method::GET, format!("{}{path}", self.base))).await
    }

    /// Sends `POST path` with a JSON body, and returns the answer line by line.
    pub(crate) async fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<JsonLines<'_, T>, Failure> {
        let url = format!("{}{path}", self.base);
        self.json_lines(self.http.request(Method::POST, url).json(body)).await
    }

    pub(super) async fn json_lines<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<JsonLines<'_, T>, Failure> {
        let lines = self.body_lines(request.header(ACCEPT, NDJSON), MAX_JSON).await?;
        Ok(JsonLines { lines, item: PhantomData })
    }

    /// Sends the request, and returns the body as lines of at most `max_len` bytes.
    pub(super) async fn body_lines(
        &self,
        request: RequestBuilder,
        max_len: usize,
    ) -> Result<BodyLines<'_>, Failure> {
        let response = timeout(SILENCE, request.send())
            .await
            .map_err(|_| self.silent())?
            .map_err(|error| self.no_response(error))?;
        if !response.status().is_success() {
            return Err(self.problem(response).await);
        }
        let codec = LinesCodec::new_with_max_length(max_len);
        Ok(BodyLines { client: self, response, buffer: BytesMut::new(), codec })
    }

    fn silent(&self) -> Failure {
        Failure::Silent { host: self.host.clone() }
    }
}

impl BodyLines<'_> {
    /// Waits for the next line; `None` at the end of the body. An incomplete last line is dropped: the server was
    /// interrupted while it wrote the line.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(line) = self.codec.decode(&mut self.buffer).map_err(|e| self.invalid(e))? {
                return Ok(Some(line));
            }
            let chunk = timeout(SILENCE, self.response.chunk())
                .await
                .map_err(|_| self.client.silent())?
                .map_err(|error| self.client.no_response(error))?;
            match chunk {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    fn invalid(&self, error: LinesCodecError) -> Failure {
        self.client.not_minionsd(match error {
            LinesCodecError::MaxLineLengthExceeded => {
                format!("a line is longer than {} MiB", self.codec.max_length() / MIB)
            }
            LinesCodecError::Io(_) => "a line is not UTF-8".to_owned(),
        })
    }
}

impl<T: DeserializeOwned> JsonLines<'_, T> {
    /// Waits for the next object; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Failure> {
        let Some(line) = self.lines.next().await? else { return Ok(None) };
        let object = serde_json::from_str(&line);
        object.map(Some).map_err(|error| self.lines.client.not_minionsd(error.to_string()))
    }
}
