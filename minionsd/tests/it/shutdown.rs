//! Start and end of the daemon.

use rustix::process::Signal;
use std::time::Duration;
use testkit::daemon::{TestDaemon, config};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::minionsd::Minionsd;
use tokio::time::timeout;

#[tokio::test]
async fn a_call_in_progress_is_completed_and_a_new_client_cannot_connect() {
    let mut daemon = TestDaemon::start().await;
    let _vm =
        FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent().unwrap())).unwrap();
    daemon.until_state("web-1", "ready").await;
    let request = daemon.http.post(daemon.url("/vms/web-1/exec"));
    let request = request.json(&serde_json::json!({ "command": "sleep", "args": ["1"] }));
    let call =
        tokio::spawn(async move { testkit::daemon::read(request.send().await.unwrap()).await });
    daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 1).await;
    daemon.ask_to_stop();
    assert_eq!(call.await.unwrap().json["exit_code"], 0);
    let (url, http, socket) =
        (daemon.url("/healthz"), testkit::daemon::http().build().unwrap(), daemon.unix_socket());
    timeout(testkit::daemon::DEADLINE, daemon.stopped()).await.unwrap();
    assert!(http.get(url).send().await.unwrap_err().is_connect());
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_call_that_outlasts_the_grace_period_is_cut_off() {
    let mut daemon =
        TestDaemon::with(|config| config.shutdown_grace = Duration::from_millis(100)).await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent().unwrap())).unwrap();
    daemon.until_state("web-1", "ready").await;
    let request = daemon.http.post(daemon.url("/vms/web-1/exec"));
    let request = request.json(&serde_json::json!({ "command": "sleep", "args": ["600"] }));
    let call = tokio::spawn(request.send());
    daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 1).await;
    daemon.ask_to_stop();
    timeout(testkit::daemon::DEADLINE, daemon.stopped()).await.unwrap();
    assert!(call.await.unwrap().is_err());
    drop(vm);
}

#[tokio::test]
async fn a_second_daemon_does_not_take_the_first_ones_socket() {
    let daemon = TestDaemon::start().await;
    let config = minionsd::config::Config { listen: None, ..config(daemon.sockets()) };
    let refused = minionsd::Daemon::bind(config).await.unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    assert!(daemon.unix_socket().exists());
}

#[tokio::test]
async fn a_file_that_is_not_a_socket_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("minionsd.toml");
    std::fs::write(&precious, "keep me").unwrap();
    let config = minionsd::config::Config {
        listen: None,
        unix_socket: Some(precious.clone()),
        ..config(dir.path())
    };
    assert!(minionsd::Daemon::bind(config).await.is_err());
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "keep me");
}

#[tokio::test]
async fn a_request_during_the_start_never_gets_a_404_for_an_existing_vm() {
    let dir = tempfile::tempdir().unwrap();
    let _vm = FakeVmm::start(dir.path(), "web-1", Behaviour::Agent(agent().unwrap())).unwrap();
    let daemon = minionsd::Daemon::bind(config(dir.path())).await.unwrap();
    let http = testkit::daemon::http().build().unwrap();
    let url = format!("http://{}/vms/web-1", daemon.local_addr().unwrap());
    let early: Vec<_> = (0..20).map(|_| tokio::spawn(http.get(&url).send())).collect();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(daemon.serve(async {
        let _ = stopped.await;
    }));
    for request in early {
        let status = request.await.unwrap().unwrap().status().as_u16();
        assert!(matches!(status, 200 | 503), "{status}");
    }
    drop((stop, http));
    serving.await.unwrap();
}

#[test]
fn a_daemon_that_was_started_with_blocked_signals_receives_them() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Minionsd::builder().launcher(["env", "--block-signal"]).start();
        let status = daemon.end(signal);
        assert!(status.success(), "{signal:?}: {status}");
    }
}
