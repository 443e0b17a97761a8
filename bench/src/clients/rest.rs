//! REST over one connection that stays open.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// Deadline for an answer; long enough for a very busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Blocking client of a daemon. Everything runs on the calling thread, so an exchange costs no switch between
/// threads of this program.
#[derive(Debug)]
pub(crate) struct RestClient {
    runtime: Runtime,
    http: Client,
}

impl RestClient {
    /// Creates a client for the daemon's Unix socket; the first request connects it.
    pub(crate) fn new(socket: &Path) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let http = Client::builder().no_proxy().unix_socket(socket).timeout(DEADLINE);
        Ok(Self { runtime, http: http.build().context("cannot create an HTTP client")? })
    }

    /// Sends a GET and returns the JSON of the answer, whose status must be 200.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None, StatusCode::OK)
    }

    /// Sends a POST and returns the JSON of the answer, whose status must be `expected`.
    pub(crate) fn post(
        &self,
        path: &str,
        body: &Value,
        expected: StatusCode,
    ) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body), expected)
    }

    /// Sends a GET and returns the answer, whose status must be 200.
    pub(crate) fn get_text(&self, path: &str) -> anyhow::Result<String> {
        let body = self.bytes(Method::GET, path, None, StatusCode::OK)?;
        String::from_utf8(body.into()).with_context(|| format!("the answer to {path} is no text"))
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        expected: StatusCode,
    ) -> anyhow::Result<Value> {
        let body = self.bytes(method, path, body, expected)?;
        serde_json::from_slice(&body).with_context(|| format!("the answer to {path} is not JSON"))
    }

    fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        expected: StatusCode,
    ) -> anyhow::Result<Bytes> {
        let mut request = self.http.request(method, format!("http://localhost{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answered = self.runtime.block_on(async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.bytes().await?))
        });
        let (status, body) = answered.with_context(|| format!("no answer to {path}"))?;
        ensure!(
            status == expected,
            "{path} was answered with {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }
}

/// Creates a runtime on the calling thread.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot create an async runtime")
}
