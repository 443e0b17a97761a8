//! Access of pages of other origins to the daemon, in a real browser.
//!
//! The browser runs as a user who may operate, so the daemon's checks of the page's origin are the only
//! protection of the VM.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod pages;

use minionsd::config::TcpOperate;
use pages::Pages;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use tempfile::TempDir;
pub(crate) use testkit::daemon::DEADLINE;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::process::Command;
use tokio::time::timeout;

/// Daemon with a VM, and a web server with a page that attacks it.
struct Scene {
    daemon: TestDaemon,
    pages: Pages,
    /// File that a program in the VM would create.
    marker: PathBuf,
    _vm: FakeVmm,
}

impl Scene {
    /// Starts the daemon with `tcp_operate = uid`: a page has no access to a token, so the uid of the
    /// browser's user must authorize for the attacks to be real.
    async fn start(allowed_hosts: &[&str]) -> Self {
        let hosts = allowed_hosts.iter().map(ToString::to_string).collect();
        let daemon = TestDaemon::with(|config| {
            config.allowed_hosts = hosts;
            config.tcp_operate = TcpOperate::Uid;
        })
        .await;
        let vm = Behaviour::Agent(agent().unwrap());
        let vm = FakeVmm::start(daemon.sockets(), "web-1", vm).unwrap();
        daemon.until_state("web-1", "ready").await;
        let pages = Pages::start(daemon.address).await;
        let marker = daemon.sockets().join("marker");
        Self { daemon, pages, marker, _vm: vm }
    }

    fn page(&self, name: &str, target: &str) -> String {
        let (address, marker) = (self.pages.address, self.marker.display());
        let page = format!("http://{name}:{}/attacks", address.port());
        // A separate name, so that the browser reuses no connection that was relayed to the daemon.
        let report = format!("http://report.example:{}/report", address.port());
        format!("{page}?target={target}&report={report}&marker={marker}")
    }

    /// Returns the outcomes of the attacks of the page with the host `name` on `target`.
    async fn attack(&mut self, name: &str, target: &str) -> Value {
        let (page, profile) = (self.page(name, target), tempfile::tempdir().unwrap());
        let mut browser = chromium(&profile).arg(page).stdout(Stdio::null()).spawn().unwrap();
        let outcomes = self.pages.report().await;
        browser.kill().await.unwrap();
        outcomes
    }

    /// Returns the page that the browser shows after that page has submitted a form.
    async fn submit(&self, name: &str, target: &str) -> String {
        dom(&format!("{}&form", self.page(name, target))).await
    }
}

/// Returns the DOM of a page when all its activity has ended.
async fn dom(page: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = chromium(&profile);
    browser.args(["--virtual-time-budget=10000", "--dump-dom", page]);
    let output = timeout(DEADLINE, browser.output()).await.expect("chromium ends").unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a browser for which every name resolves to this machine. Its protection of the local network is
/// disabled, because not every browser has one.
fn chromium(profile: &TempDir) -> Command {
    let is_there = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|dir| dir.join("chromium").exists());
    assert!(is_there, "this test needs chromium: `cargo xtask test` installs it");
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]);
    command.args(["--no-first-run", "--disable-background-networking", "--disable-sync"]);
    command.args(["--disable-component-update", "--no-proxy-server"]);
    command.arg("--disable-features=LocalNetworkAccessChecks");
    command.arg("--host-resolver-rules=MAP * 127.0.0.1");
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.env("HOME", profile.path()).stdin(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_page_of_another_origin_can_neither_operate_nor_read() {
    let mut scene = Scene::start(&[]).await;
    let target = scene.daemon.url("");
    // Pages from another port, another name, and another site.
    for name in ["127.0.0.1", "localhost", "evil.example"] {
        let outcomes = scene.attack(name, &target).await;
        let expected = json!({
            "text": "failed", "json": "failed", "read": "failed", "socket": "failed",
            // Sent and rejected; the browser shows the page nothing of the rejection.
            "blind": "failed", "look": "failed",
        });
        assert_eq!(outcomes, expected, "from {name}");
        let reply = scene.submit(name, &target).await;
        assert!(reply.contains("urn:minions:problem:forbidden"), "from {name}: {reply}");
        assert!(!scene.marker.exists(), "from {name}");
    }
}

#[tokio::test]
async fn a_page_with_a_rebound_name_is_rejected() {
    let mut scene = Scene::start(&[]).await;
    let target = format!("http://evil.example:{}", scene.pages.address.port());
    let outcomes = scene.attack("evil.example", &target).await;
    let expected = json!({
        "text": "403", "json": "403", "blind": "403", "read": "403", "look": "403",
        "socket": "failed",
    });
    assert_eq!(outcomes, expected);
    assert!(!scene.marker.exists());
    // The daemon's own pages are also unavailable under that name.
    let page = format!("http://evil.example:{}/docs/", scene.daemon.address.port());
    let dom = dom(&page).await;
    assert!(dom.contains("forbidden") && !dom.contains("swagger"), "{dom}");
}

/// Proves that the attacks work: with an allowed host name, the attack that sends JSON succeeds.
#[tokio::test]
async fn a_page_of_the_daemon_is_allowed() {
    let mut scene = Scene::start(&["ours.example"]).await;
    let target = format!("http://ours.example:{}", scene.pages.address.port());
    let outcomes = scene.attack("ours.example", &target).await;
    let (json, read, text) = (&outcomes["json"], &outcomes["read"], &outcomes["text"]);
    assert_eq!((json, read, text), (&json!("200"), &json!("200"), &json!("415")));
    assert!(scene.marker.exists());
}

#[tokio::test]
async fn the_dashboard_shows_texts_of_guests_as_plain_text() {
    let scene = Scene::start(&[]).await;
    let hostile = r#"{"status":"ok","uptime_secs":1,"hostname":"<img src=x onerror=document.title='owned'>zero\u200bwidth\udb40\udc41"}"#;
    let length = u32::try_from(hostile.len()).unwrap();
    let frame = [&length.to_be_bytes()[..], hostile.as_bytes()].concat();
    let _evil = FakeVmm::start(scene.daemon.sockets(), "evil", Behaviour::Replies(frame)).unwrap();
    scene.daemon.until_state("evil", "ready").await;
    // The browser waits for the page's event stream, which never ends. With all places for readers taken, the
    // page polls on a timer instead.
    let mut readers = Vec::new();
    loop {
        let reader = scene.daemon.http.get(scene.daemon.url("/events")).send().await.unwrap();
        if reader.status() == 503 {
            break;
        }
        readers.push(reader);
    }
    let dom = dom(&scene.daemon.url("/")).await;
    assert!(dom.contains(">web-1<") && dom.contains("2 of 2 ready"), "{dom}");
    assert!(dom.contains("&lt;img src=x") && !dom.contains("<img"), "{dom}");
    assert!(dom.contains("<title>minions</title>"), "{dom}");
    assert!(dom.contains(r"zero\u{200b}width\u{e0041}"), "{dom}");
}
