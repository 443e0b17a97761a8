//! The client: its address and credentials, and calls with one answer.

use super::limits::{MAX_JSON, MAX_PROBLEM, MIB};
use super::tls;
use crate::config::ClientConfig;
use crate::connect_failure::ConnectFailure;
use crate::failure::Failure;
use crate::host_address::InvalidHost;
use minions_api::problem::MEDIA_TYPE;
use minions_api::{Problem, VmName};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Deadline for connecting to a daemon on the same host or nearby.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time on top of the daemon's own deadline after which this client stops waiting for the answer.
const BEYOND_DEADLINE: Duration = Duration::from_secs(10);

/// Header for the incarnation that a call must reach.
const IF_INCARNATION: &str = "if-incarnation";

/// Client of one minionsd.
#[derive(Debug)]
pub(crate) struct DaemonClient {
    pub(super) http: reqwest::Client,
    /// Base URL, without a trailing slash.
    pub(super) base: String,
    /// Address as configured, for messages.
    pub(super) host: String,
}

/// Deadlines of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallDeadlines {
    /// Deadline for the daemon, sent as `?timeout_ms=`.
    pub(crate) asked: Option<Duration>,
    /// Maximum time that the daemon takes if `asked` is `None`.
    pub(crate) at_most: Duration,
}

impl DaemonClient {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Failure> {
        let host = config.host.to_string();
        if config.token.is_some() && !is_private(&host) {
            return Err(Failure::Usage(
                "refusing to send the token over the network in the clear: use https://, unix:// or a \
                 loopback address",
            ));
        }
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .default_headers(headers(config)?)
            .no_proxy();
        let base = host.trim_end_matches('/').to_owned();
        let (builder, base) = match host.strip_prefix("unix://") {
            Some(path) => (tls::none(builder).unix_socket(path), "http://localhost".to_owned()),
            None if host.starts_with("http://") => (tls::none(builder), base),
            None => (tls::trust(builder, config)?, base),
        };
        let http = builder.build().map_err(|error| {
            let source = ConnectFailure::Other(error);
            Failure::Unreachable { host: host.clone(), source }
        })?;
        Ok(Self { http, base, host })
    }

    /// Reports whether minionsd runs on this host, so that the paths in its answers are valid here.
    pub(crate) fn is_on_this_host(&self) -> bool {
        self.host.starts_with("unix://") || is_loopback(&self.host)
    }

    /// Sends `GET path`.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: CallDeadlines,
    ) -> Result<T, Failure> {
        self.send(self.request(Method::GET, path, patience)).await
    }

    /// Sends `method path` with a JSON body.
    pub(crate) async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        patience: CallDeadlines,
    ) -> Result<T, Failure> {
        self.send(self.request(method, path, patience).json(body)).await
    }

    /// Sends `method path` with a query and without a body.
    pub(crate) async fn send_query<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        patience: CallDeadlines,
    ) -> Result<T, Failure> {
        let timeout_ms = patience.asked.map(|asked| asked.as_millis().to_string());
        let timeout_ms = timeout_ms.iter().map(|timeout_ms| ("timeout_ms", timeout_ms.as_str()));
        let query: Vec<_> = query.iter().copied().chain(timeout_ms).collect();
        let limit = patience.asked.unwrap_or(patience.at_most) + BEYOND_DEADLINE;
        self.send(self.http.request(method, self.url(path, &query)?).timeout(limit)).await
    }

    /// Sends `DELETE path`.
    pub(crate) async fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: CallDeadlines,
    ) -> Result<T, Failure> {
        self.send(self.request(Method::DELETE, path, patience)).await
    }

    /// Returns the URL of `path` with a query.
    pub(super) fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<reqwest::Url, Failure> {
        let url = format!("{}{path}", self.base);
        reqwest::Url::parse_with_params(&url, query)
            .map_err(|_| InvalidHost(self.host.clone()).into())
    }

    fn request(&self, method: Method, path: &str, patience: CallDeadlines) -> RequestBuilder {
        let query = match patience.asked {
            Some(asked) => {
                let separator = if path.contains('?') { '&' } else { '?' };
                format!("{separator}timeout_ms={}", asked.as_millis())
            }
            None => String::new(),
        };
        self.http
            .request(method, format!("{}{path}{query}", self.base))
            .timeout(patience.asked.unwrap_or(patience.at_most) + BEYOND_DEADLINE)
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, Failure> {
        let response = request.send().await.map_err(|error| self.no_response(error))?;
        if !response.status().is_success() {
            return Err(self.problem(response).await);
        }
        let described = described(&response);
        let body = self.body(response, MAX_JSON).await?;
        serde_json::from_slice(&body).map_err(|error| {
            self.not_minionsd(format!("{described}, which is not the expected JSON: {error}"))
        })
    }

    /// Reads the body. Fails if it is longer than `at_most` bytes.
    async fn body(&self, mut response: Response, at_most: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.no_response(error))? {
            if body.len() + chunk.len() > at_most {
                let limit = at_most / MIB;
                return Err(self.not_minionsd(format!("the answer is longer than {limit} MiB")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Converts an error response to a [`Failure`].
    pub(super) async fn problem(&self, response: Response) -> Failure {
        let status = response.status();
        if media_type(&response) != Some(MEDIA_TYPE) {
            let what = described(&response);
            return self
                .not_minionsd(format!("status {status} with {what} in place of problem details"));
        }
        match self.body(response, MAX_PROBLEM).await {
            Err(failure) => failure,
            Ok(body) => match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) => Failure::Problem(Box::new(problem)),
                Err(error) => self.not_minionsd(error.to_string()),
            },
        }
    }

    pub(super) fn no_response(&self, source: reqwest::Error) -> Failure {
        let host = self.host.clone();
        match ConnectFailure::of(&host, source) {
            Ok(source) => Failure::Unreachable { host, source },
            Err(source) => Failure::NoAnswer { host, source },
        }
    }

    /// Returns the failure for an incomplete answer.
    pub(crate) fn broke_off(&self) -> Failure {
        Failure::BrokeOff { host: self.host.clone() }
    }

    /// Returns the failure for an answer that minionsd does not give.
    pub(crate) fn not_minionsd(&self, what: String) -> Failure {
        Failure::NotMinionsd { host: self.host.clone(), what }
    }
}

/// Reports whether a token may be sent to `host`: over a Unix socket, loopback, or TLS.
fn is_private(host: &str) -> bool {
    host.starts_with("unix://") || host.starts_with("https://") || is_loopback(host)
}

fn is_loopback(host: &str) -> bool {
    let url = reqwest::Url::parse(host).ok();
    url.as_ref().and_then(|url| url.host_str()).is_some_and(crate::host_address::is_loopback)
}

/// Returns the path of `resource` below `/vms/{vm}`. VM names need no escaping in a URL.
pub(crate) fn vm_path(vm: &VmName, resource: &str) -> String {
    format!("/vms/{vm}{resource}")
}

fn headers(config: &ClientConfig) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    if let Some(token) = &config.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            Failure::Usage("the token file must contain one line of visible ASCII characters")
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if let Some(incarnation) = &config.incarnation {
        let value = HeaderValue::from_str(incarnation).map_err(|_| {
            Failure::Usage("--incarnation must consist of visible ASCII characters")
        })?;
        headers.insert(IF_INCARNATION, value);
    }
    Ok(headers)
}

/// Describes the body of an answer, for messages.
fn described(response: &Response) -> String {
    match media_type(response) {
        Some(media_type) if media_type.starts_with("text/html") => {
            "an HTML page (of a proxy, possibly)".into()
        }
        Some(media_type) => format!("a body of the type {media_type:?}"),
        None => "a body without a type".into(),
    }
}

fn media_type(response: &Response) -> Option<&str> {
    response.headers().get(CONTENT_TYPE)?.to_str().ok()
}
