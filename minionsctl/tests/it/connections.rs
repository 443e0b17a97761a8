//! Failures of the connection to minionsd, one clear sentence each, also as JSON.

use crate::scripted::peer::Listener;
use crate::shared::command::{Ran, ctl, minionsctl};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use testkit::daemon::TestDaemon;

#[test]
fn each_way_in_which_connecting_fails_has_its_sentence_and_advice() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let long = format!("/{}", "x".repeat(200));
    for (host, sentence, advice) in [
        (
            "http://127.0.0.1:1",
            "connection refused: no process listens there",
            "is minionsd running?",
        ),
        ("tcp://127.0.0.1:1", "at http://127.0.0.1:1: connection refused", "is minionsd running?"),
        (stale.to_str().unwrap(), "connection refused", "is minionsd running?"),
        ("/nowhere.sock", "at unix:///nowhere.sock: the socket does not exist", "is minionsd"),
        ("unix:/nowhere.sock", "the socket does not exist", "is minionsd running?"),
        (&long, "the path is too long", "107 bytes"),
        ("no-such-host.invalid", "the host name cannot be resolved", "check the name"),
    ] {
        let ran = Ran::of(&mut ctl(host, &["ls"]));
        ran.assert(1, "", sentence).assert(1, "", "\nhint: ").assert(1, "", advice);
        assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_is_not_taken_for_an_answer() {
    let proxy = Listener::bind().await;
    let html = "content-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    for (status, seen) in [
        ("502 Bad Gateway", "status 502 Bad Gateway with an HTML page"),
        ("200 OK", "an HTML page (of a proxy, possibly), which is not the expected JSON"),
    ] {
        let host = proxy.host();
        let ran = tokio::task::spawn_blocking(move || Ran::of(&mut ctl(&host, &["ls"])));
        proxy.answer(&[&format!("HTTP/1.1 {status}\r\n"), html]).await;
        ran.await.unwrap().assert(1, "", "may not be minionsd").assert(1, "", seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_as_json_has_a_code_and_the_request_id() {
    let daemon = TestDaemon::start().await;
    let report = |host: &str, args: &[&str], code: i32| -> Value {
        let ran = Ran::of(&mut ctl(host, args));
        assert_eq!((ran.code, ran.stdout.len()), (code, 0), "{}", ran.stderr);
        serde_json::from_str(&ran.stderr).unwrap()
    };
    let unknown = report(&daemon.host(), &["-o", "json", "get", "nope"], 1);
    assert_eq!((&unknown["code"], &unknown["vm"]), (&"vm_not_found".into(), &"nope".into()));
    assert_eq!(unknown["request_id"].as_str().unwrap().len(), 36);
    assert_eq!(unknown["may_have_executed"], false);
    let exec = report(&daemon.host(), &["-o", "json", "exec", "nope", "true"], 125);
    assert_eq!(exec["code"], "vm_not_found");
    let refused = report("http://127.0.0.1:1", &["-o", "json", "ls"], 1);
    assert_eq!(refused["code"], "daemon_unreachable");
    assert_eq!(refused["retryable"], true);
    assert!(refused["hint"].as_str().unwrap().contains("is minionsd running?"));
    let usage = report(&daemon.host(), &["-o", "json", "health"], 1);
    assert_eq!(usage["code"], "invalid_usage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_without_a_unit_is_in_seconds() {
    let daemon = TestDaemon::start().await;
    let ran = Ran::of(&mut ctl(&daemon.host(), &["--timeout", "1", "wait", "--for", "ready", "x"]));
    ran.assert(1, "", "not ready within 1s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_file_that_must_not_be_read_is_skipped_with_a_remark() {
    let daemon = TestDaemon::start().await;
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("minions");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(minionsctl(&[]).get_program()).args(["--host", &daemon.url(""), "ls"]);
    command.env("XDG_CONFIG_HOME", dir.path());
    Ran::of(&mut command).assert(0, "NAME", "config.toml is ignored: Permission denied");
}
