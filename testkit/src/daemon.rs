//! A daemon that runs in the test's own process, and an HTTP client for it.
//!
//! Every failure in this module ends the test with a panic.
#![expect(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

use crate::fake_vmm::{Behaviour, FakeVmm, agent};
pub use crate::wait::DEADLINE;
use crate::wait::until_async;
use minionsd::Daemon;
use minionsd::config::{
    AgentPorts, AuditRule, Config, LogFormat, RestoreRules, SampleIntervals, TcpOperate, TcpRead,
    TokenFile,
};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Running daemon. Its socket directory is empty at first.
#[derive(Debug)]
pub struct TestDaemon {
    dir: TempDir,
    /// TCP address of the daemon.
    pub address: SocketAddr,
    /// HTTP client that sends the daemon's token, for requests that no method of this type sends.
    pub http: reqwest::Client,
    token: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// Returns a configuration in which `dir` is the directory of the daemon's own socket and of the VMs' sockets.
#[must_use]
pub fn config(dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().ok(),
        unix_socket: Some(dir.join("minionsd.sock")),
        socket_dir: dir.to_owned(),
        socket_owners: Vec::new(),
        agent_ports: AgentPorts::default(),
        announce: true,
        token_file: None,
        operator_group: "minions".into(),
        tcp_read: TcpRead::Local,
        tcp_operate: TcpOperate::Token,
        tls: None,
        audit_log: None,
        audit: AuditRule::BestEffort,
        state: None,
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        pool_size: 8,
        clock_limit: None,
        restore: RestoreRules::default(),
        // A test counts the connections and requests that it causes.
        samples: SampleIntervals { default: None, rules: Vec::new() },
        reattach_grace: None,
        shutdown_grace: Duration::from_secs(10),
        log_format: LogFormat::Text,
        log_level: "info".into(),
    }
}

/// Bearer token of the daemon.
pub const TOKEN: &str = "test-test-test-test-test-test";

/// Writes [`TOKEN`] to a file in `dir`, with permissions that minionsd accepts.
///
/// # Panics
///
/// Panics if the file cannot be written.
pub fn write_token(dir: &Path) -> PathBuf {
    let path = dir.join("token");
    fs::write(&path, TOKEN).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// Returns a builder of an HTTP client for a daemon on this machine.
///
/// Installs a TLS cryptography provider first: when all crates are built together, minionsctl enables TLS in reqwest,
/// which then needs a provider to build any client.
pub fn http() -> reqwest::ClientBuilder {
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// Response that was read to its end.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// Body; null if it is not JSON.
    pub json: Value,
}

impl TestDaemon {
    /// Starts a daemon with the default configuration.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a daemon with a new socket directory, and with the default configuration as changed by `adjust`.
    pub async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("minionsd-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let mut config = config(dir.path());
        config.token_file = Some(TokenFile::Existing(write_token(dir.path())));
        adjust(&mut config);
        let token = config.token_file.as_ref().map(|file| fs::read_to_string(file.path()).unwrap());
        let over_unix = config.tls.is_some().then(|| config.unix_socket.clone()).flatten();
        let daemon = Daemon::bind(config).await.unwrap();
        let address = daemon.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(daemon.serve(async {
            let _ = stopped.await;
        }));
        let mut headers = HeaderMap::new();
        if let Some(token) = &token {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        let mut http = http().timeout(DEADLINE).default_headers(headers);
        // With TLS on TCP, the requests of the test go over the Unix socket.
        if let Some(path) = over_unix {
            http = http.unix_socket(path);
        }
        let http = http.build().unwrap();
        let daemon = Self { dir, address, http, token, stop: Some(stop), task };
        daemon.until("/readyz", |ready| ready.status == 200).await;
        daemon
    }

    /// Starts a daemon and a VM named `web-1` (the real agent's library in a fake VMM), and waits until the VM is
    /// ready.
    pub async fn with_vm() -> (Self, FakeVmm) {
        let daemon = Self::start().await;
        let behaviour = Behaviour::Agent(agent().unwrap());
        let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
        daemon.until_state("web-1", "ready").await;
        (daemon, vm)
    }

    /// Returns the directory of the VMs' sockets.
    pub fn sockets(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path of the daemon's Unix socket.
    pub fn unix_socket(&self) -> PathBuf {
        self.dir.path().join("minionsd.sock")
    }

    /// Returns the value of `minionsctl --host` for the Unix socket, over which the user of the test may operate.
    pub fn host(&self) -> String {
        format!("unix://{}", self.unix_socket().display())
    }

    /// Returns the value of an `Authorization` header that permits all operations.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.token.as_deref().unwrap_or_default())
    }

    /// Returns the URL of `path` over TCP.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends `GET path`.
    pub async fn get(&self, path: &str) -> Reply {
        read(self.http.get(self.url(path)).send().await.unwrap()).await
    }

    /// Sends `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        read(self.http.post(self.url(path)).json(&body).send().await.unwrap()).await
    }

    /// Sends `PUT path` with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        read(self.http.put(self.url(path)).json(&body).send().await.unwrap()).await
    }

    /// Builds a request with the daemon's token.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// Runs `command` with `args` in `vm`.
    pub async fn exec(&self, vm: &str, command: &str, args: &[&str]) -> Reply {
        let body = serde_json::json!({ "command": command, "args": args });
        self.post(&format!("/vms/{vm}/exec"), body).await
    }

    /// Waits until `GET path` satisfies `condition`.
    pub async fn until(&self, path: &str, condition: impl Fn(&Reply) -> bool) -> Reply {
        let what = format!("GET {path} returns the expected reply");
        until_async(&what, async || {
            let reply = self.get(path).await;
            if condition(&reply) { Ok(reply) } else { Err(reply) }
        })
        .await
    }

    /// Waits until `vm` is in `state`.
    pub async fn until_state(&self, vm: &str, state: &str) -> Reply {
        self.until(&format!("/vms/{vm}"), |reply| reply.json["state"] == state).await
    }

    /// Requests that the daemon stops, as a signal would.
    pub fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Stops the daemon and waits until it has ended.
    pub async fn stopped(mut self) {
        self.ask_to_stop();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a response to its end.
pub async fn read(response: reqwest::Response) -> Reply {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.unwrap();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Reply { status, headers, json }
}

impl Reply {
    /// Asserts that the reply is the problem `code`, with all its fields and headers.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, &self.json["code"]), (status, &code.into()), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json["status"], status);
        assert_eq!(self.json["type"], format!("urn:minions:problem:{code}"));
        assert_eq!(self.json["request_id"], self.headers["x-request-id"].to_str().unwrap());
        assert!(self.json["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        self
    }

    /// Asserts that the problem names this field.
    #[track_caller]
    pub fn assert_field(&self, field: &str) {
        assert_eq!(self.json["field"], field, "{self:?}");
    }
}
