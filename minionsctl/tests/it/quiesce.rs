//! `quiesce` with and without a command on this host, and `thaw`.

use crate::shared::command::{Ran, Running, ctl, direct};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;
use testkit::agent_process::AgentProcess;
use testkit::daemon::TestDaemon;

struct HookedVm {
    daemon: TestDaemon,
    _agent: AgentProcess,
    hooks: TempDir,
}

impl HookedVm {
    async fn start() -> Self {
        let (daemon, hooks) = (TestDaemon::start().await, tempfile::tempdir().unwrap());
        let flags = ["--allow", "health,status,exec,quiesce", "--hook-dir"];
        let flags = [&flags[..], &[hooks.path().to_str().unwrap()]].concat();
        let agent = AgentProcess::start(daemon.sockets(), "web-1", &flags);
        daemon.until_state("web-1", "ready").await;
        let guest = Self { daemon, _agent: agent, hooks };
        guest.hook("thaw.d/10-note", &format!("echo thawed >> {}", guest.notes().display()));
        guest
    }

    fn hook(&self, path: &str, script: &str) {
        let file = self.hooks.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns the file to which the thaw hook appends a line.
    fn notes(&self) -> PathBuf {
        self.hooks.path().join("notes.txt")
    }

    fn thaws(&self) -> usize {
        fs::read_to_string(self.notes()).unwrap_or_default().lines().count()
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut ctl(&self.daemon.host(), args))
    }

    fn exec_code(&self) -> i32 {
        self.run(&["exec", "web-1", "--", "true"]).code
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_runs_while_the_guest_is_quiesced_and_its_exit_code_is_passed_on() {
    let guest = HookedVm::start().await;
    let ctl = format!("{} --host {}", env!("CARGO_BIN_EXE_minionsctl"), guest.daemon.host());
    let script = format!("{ctl} exec web-1 -- true 2>/dev/null; echo inside $?; exit 7");
    let ran = guest.run(&["quiesce", "web-1", "--", "sh", "-c", &script]);
    ran.assert(7, "inside 125\n", "");
    assert_eq!((guest.thaws(), guest.exec_code()), (1, 0));
    let ended = guest.run(&["quiesce", "web-1", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!((ended.code, guest.thaws(), guest.exec_code()), (143, 2, 0));
    let missing = guest.run(&["quiesce", "web-1", "--", "/nonexistent/snapshot"]);
    missing.assert(127, "", "cannot run \"/nonexistent/snapshot\" on this host");
    assert_eq!((guest.thaws(), guest.exec_code()), (3, 0));
    // The same without minionsd.
    let socket = guest.daemon.sockets().join("web-1.vsock");
    let ran = Ran::of(&mut direct(&socket, &["quiesce", "--", "sh", "-c", "exit 5"]));
    assert_eq!((ran.code, guest.thaws()), (5, 4), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_outlives_the_lease_has_failed() {
    let guest = HookedVm::start().await;
    let script = format!("until test -s {}; do sleep 0.05; done", guest.notes().display());
    let ran = guest.run(&["quiesce", "--ttl", "1s", "web-1", "--", "sh", "-c", &script]);
    ran.assert(125, "", "the lease ended before \"sh\" did");
    ran.assert(125, "", "a longer --ttl");
    assert_eq!((guest.thaws(), guest.exec_code()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_another_client_thawed_was_not_quiesced_until_the_end_of_the_command() {
    let guest = HookedVm::start().await;
    let ctl = format!("{} --host {}", env!("CARGO_BIN_EXE_minionsctl"), guest.daemon.host());
    let script = format!("{ctl} thaw web-1 >/dev/null");
    let ran = guest.run(&["quiesce", "--ttl", "10m", "web-1", "--", "sh", "-c", &script]);
    ran.assert(125, "", "another client or process thawed the guest");
    assert_eq!((guest.thaws(), guest.exec_code()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_command_and_thaws_the_guest() {
    let guest = HookedVm::start().await;
    let args = ["quiesce", "--ttl", "10m", "web-1", "--", "sh", "-c", "echo up; exec sleep 600"];
    let mut running = Running::start(&mut ctl(&guest.daemon.host(), &args));
    assert_eq!(running.line(), "up");
    running.signal(Signal::TERM);
    let ran = running.end();
    assert_eq!((ran.code, guest.thaws(), guest.exec_code()), (143, 1, 0), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_command_the_guest_stays_quiesced_until_the_thaw() {
    let guest = HookedVm::start().await;
    let quiesced = guest.run(&["-o", "json", "quiesce", "web-1"]);
    let quiesced: serde_json::Value = serde_json::from_slice(&quiesced.stdout).unwrap();
    let id = quiesced["id"].as_str().unwrap();
    guest.run(&["thaw", "web-1", "--id", id]).assert(0, "Quiesced for:", "");
    guest.run(&["quiesce", "web-1"]).assert(0, "Quiesced until:", "");
    guest.run(&["get", "web-1"]).assert(0, "Quiesced until:", "");
    guest.run(&["health", "web-1"]).assert(0, "Quiesced until:", "");
    guest.run(&["quiesce", "web-1"]).assert(1, "", "already quiesced");
    guest.run(&["exec", "web-1", "--", "true"]).assert(125, "", "minionsctl thaw VM");
    guest.run(&["thaw", "web-1", "--id", "another"]).assert(1, "", "the guest is not quiesced");
    guest.run(&["health", "web-1"]).assert(0, "Quiesced until:", "");
    guest.run(&["thaw", "web-1"]).assert(0, "Quiesced for:", "");
    guest.run(&["thaw", "web-1"]).assert(1, "", "the guest is not quiesced");
    assert_eq!(guest.exec_code(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_is_not_run_if_the_guest_cannot_be_quiesced() {
    let guest = HookedVm::start().await;
    guest.hook("freeze.d/10-db", "exit 1");
    let ran = guest.run(&["quiesce", "web-1", "--", "echo", "ran"]);
    ran.assert(125, "", "freeze.d/10-db exited with status 1");
    assert_eq!((ran.stdout.len(), guest.thaws()), (0, 1));
    guest.run(&["quiesce", "--ttl", "1y", "web-1"]).assert(1, "", "`--ttl` is ");
    guest.run(&["--timeout", "1s", "quiesce", "web-1"]).assert(1, "", "--timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_with_an_incarnation_reach_only_this_one() {
    let guest = HookedVm::start().await;
    let json = guest.run(&["-o", "json", "get", "web-1"]).json();
    let id = json["incarnation"]["id"].as_str().unwrap();
    guest.run(&["get", "web-1"]).assert(0, id, "");
    let touched = guest.hooks.path().join("touched");
    let touch = ["exec", "web-1", "--", "touch", touched.to_str().unwrap()];
    let with = |id: &str, args: &[&str]| guest.run(&[&["--incarnation", id], args].concat());
    with("another", &touch).assert(125, "", "not the one of `If-Incarnation`");
    with("another", &["quiesce", "web-1"]).assert(1, "", "not the one of `If-Incarnation`");
    assert!(!touched.exists(), "a refused program was run");
    assert_eq!(with(id, &touch).code, 0);
    assert!(touched.exists());
    with(id, &["quiesce", "web-1", "--", "true"]).assert(0, "", "");
    let socket = guest.daemon.sockets().join("web-1.vsock");
    let direct = Ran::of(&mut direct(&socket, &["--incarnation", id, "health"]));
    assert_eq!(direct.code, 2, "{}", direct.stderr);
}
