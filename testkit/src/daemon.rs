//! A daemon of the test's own, and HTTP to it.
//!
//! What goes wrong here ends the test: everything panics, and says where it was called.
#![expect(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use crate::fake_vmm::{Behaviour, FakeVmm, agent};
use minionsd::Daemon;
use minionsd::config::{AgentPorts, AuditRule, Config, LogFormat, TcpOperate, TcpRead, TokenFile};
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
use tokio::time::{Instant, sleep};

/// Long enough for a machine that is very busy; nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A daemon over an empty directory of sockets.
#[derive(Debug)]
pub struct TestDaemon {
    dir: TempDir,
    /// Where it serves over TCP.
    pub address: SocketAddr,
    /// A client with the daemon's token, for requests that the methods here don't make.
    pub http: reqwest::Client,
    token: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// The configuration of a daemon whose sockets, and whose VMs', are in `dir`.
#[must_use]
pub fn config(dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().ok(),
        unix_socket: Some(dir.join("minionsd.sock")),
        socket_dir: dir.to_owned(),
        socket_owners: Vec::new(),
        agent_ports: AgentPorts::default(),
        token_file: None,
        operator_group: "minions".into(),
        tcp_read: TcpRead::Local,
        tcp_operate: TcpOperate::Token,
        tls: None,
        audit_log: None,
        audit: AuditRule::BestEffort,
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        pool_size: 8,
        clock_limit: None,
        shutdown_grace: Duration::from_secs(10),
        log_format: LogFormat::Text,
        log_level: "info".into(),
    }
}

/// The token of a test's own daemon.
pub const TOKEN: &str = "test-test-test-test-test-test";

/// Writes [`TOKEN`] to a file in `dir`, as minionsd accepts it.
///
/// # Panics
///
/// The file cannot be written.
pub fn write_token(dir: &Path) -> PathBuf {
    let path = dir.join("token");
    fs::write(&path, TOKEN).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// A client of a daemon on this machine, for who adds something to it.
///
/// A build of all crates together has TLS in it, since minionsctl wants it, and such a client can't be
/// made before somebody has chosen the cryptography.
pub fn http() -> reqwest::ClientBuilder {
    // Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// A reply, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; null if it isn't JSON.
    pub json: Value,
}

impl TestDaemon {
    /// With everything at its default.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With the configuration as `adjust` leaves it. Its directory of sockets is one of its own.
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
        // With TLS on TCP, the test's own requests go over the Unix socket.
        if let Some(path) = over_unix {
            http = http.unix_socket(path);
        }
        let http = http.build().unwrap();
        let daemon = Self { dir, address, http, token, stop: Some(stop), task };
        daemon.until("/readyz", |ready| ready.status == 200).await;
        daemon
    }

    /// With a VM named `web-1` that is ready: the real agent behind a fake VMM.
    pub async fn with_vm() -> (Self, FakeVmm) {
        let daemon = Self::start().await;
        let behaviour = Behaviour::Agent(agent().unwrap());
        let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
        daemon.until_state("web-1", "ready").await;
        (daemon, vm)
    }

    /// Where the VMs' sockets go.
    pub fn sockets(&self) -> &Path {
        self.dir.path()
    }

    /// Where it serves over Unix.
    pub fn unix_socket(&self) -> PathBuf {
        self.dir.path().join("minionsd.sock")
    }

    /// The daemon as `minionsctl --host` takes it: over the Unix socket, where the test's user operates.
    pub fn host(&self) -> String {
        format!("unix://{}", self.unix_socket().display())
    }

    /// The `Authorization` header's value that authorizes to operate.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.token.as_deref().unwrap_or_default())
    }

    /// `path` as a URL.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Reply {
        read(self.http.get(self.url(path)).send().await.unwrap()).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        read(self.http.post(self.url(path)).json(&body).send().await.unwrap()).await
    }

    /// `PUT path` with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        read(self.http.put(self.url(path)).json(&body).send().await.unwrap()).await
    }

    /// Runs `command` with `args` in `vm`.
    pub async fn exec(&self, vm: &str, command: &str, args: &[&str]) -> Reply {
        let body = serde_json::json!({ "command": command, "args": args });
        self.post(&format!("/vms/{vm}/exec"), body).await
    }

    /// Waits until `GET path` satisfies `condition`.
    pub async fn until(&self, path: &str, condition: impl Fn(&Reply) -> bool) -> Reply {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let reply = self.get(path).await;
            if condition(&reply) {
                return reply;
            }
            assert!(Instant::now() < deadline, "GET {path} stays {reply:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `vm` is in `state`.
    pub async fn until_state(&self, vm: &str, state: &str) -> Reply {
        self.until(&format!("/vms/{vm}"), |reply| reply.json["state"] == state).await
    }

    /// Asks the daemon to stop, as a signal would.
    pub fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for its end.
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
    /// It is the problem `code`, in full form.
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

    /// The problem is about this field.
    #[track_caller]
    pub fn assert_field(&self, field: &str) {
        assert_eq!(self.json["field"], field, "{self:?}");
    }
}
