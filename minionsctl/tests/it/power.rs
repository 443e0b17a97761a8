//! `reboot` and `poweroff`, and waiting for them.

use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use testkit::daemon::{DEADLINE, Reply, TestDaemon};
use testkit::fake_vmm::{Behaviour, Boot, Dialect, FakeVmm, Guest};
use testkit::wait::until_async;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// A running `minionsctl`, without anything of this machine's configuration.
fn start(daemon: &TestDaemon, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_minionsctl"))
        .args(["--host", &daemon.host()])
        .args(args)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Exit code, standard output, standard error.
async fn ended(child: Child) -> (i32, String, String) {
    let output = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), stdout, stderr)
}

async fn run(daemon: &TestDaemon, args: &[&str]) -> (i32, String, String) {
    ended(start(daemon, args)).await
}

/// A daemon and a VM, of which this process is the VMM unless `process` names another.
async fn ready(process: Option<&str>) -> (TestDaemon, FakeVmm, Guest) {
    let daemon = TestDaemon::start().await;
    let guest = Guest::new("web-1", Dialect::Objects, 1, Arc::default());
    let behaviour = Behaviour::Guest(guest.clone());
    let vm = match process {
        None => FakeVmm::start(daemon.sockets(), "web-1", behaviour),
        Some(process) => FakeVmm::start_as(daemon.sockets(), "web-1", behaviour, process),
    };
    daemon.until_state("web-1", "ready").await;
    (daemon, vm.unwrap(), guest)
}

async fn asked(guest: &Guest) {
    until_async("the guest is asked", async || guest.power_requests() > 0).await;
}

fn failure(vm: &Reply) -> &Value {
    &vm.json["reason"]["failure"]
}

#[tokio::test]
async fn a_reboot_that_is_waited_for_ends_in_the_new_boot_over_a_recreated_socket() {
    let (daemon, mut vm, guest) = ready(None).await;
    let mut reboot = start(&daemon, &["-o", "json", "reboot", "web-1", "--wait"]);
    asked(&guest).await;
    vm.remove_socket().await.unwrap();
    guest.restart(2, true);
    let boot = Boot::of(guest.clone());
    vm.create_socket(Behaviour::Boots(boot.clone())).unwrap();
    daemon.until("/vms/web-1", |vm| vm.json["reason"]["layer"] == "no_handshake").await;
    assert_eq!(reboot.try_wait().unwrap(), None, "it did not wait for the new boot");
    boot.completes();
    let (code, stdout, stderr) = ended(reboot).await;
    assert_eq!(code, 0, "{stderr}");
    let waited: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&waited["boot_id"], &waited["vm"]["state"], &waited["vm"]["agent"]["boot_id"]),
        (&json!("web-1 boot 1"), &json!("ready"), &json!("web-1 boot 2"))
    );
    let (code, stdout, _) = run(&daemon, &["exec", "web-1", "--", "soak", "7"]).await;
    assert_eq!((code, stdout.as_str()), (0, "web-1 2 7\n"));
}

#[tokio::test]
async fn a_reboot_prints_the_boot_that_ends_and_wait_takes_it() {
    let (daemon, vm, guest) = ready(None).await;
    let (code, stdout, _) = run(&daemon, &["reboot", "web-1"]).await;
    assert!(code == 0 && stdout.contains("web-1 boot 1"), "{stdout}");
    let mut waits = start(&daemon, &["wait", "web-1", "--rebooted-since", "web-1 boot 1"]);
    let seen = run(&daemon, &["wait", "web-1"]).await;
    assert_eq!((seen.0, seen.1.trim()), (0, "web-1 is ready"), "of the old boot");
    assert_eq!(waits.try_wait().unwrap(), None, "it did not wait for the new boot");
    guest.restart(2, true);
    vm.cut();
    let (code, stdout, stderr) = ended(waits).await;
    assert!(code == 0 && stdout.contains("web-1 boot 2"), "{stdout}{stderr}");
    let again = run(&daemon, &["wait", "web-1", "--rebooted-since", "web-1 boot 1"]).await;
    assert_eq!(again.0, 0);
    for wrong in [&["--rebooted-since", ""][..], &["job", "--rebooted-since", "x"]] {
        let args = [&["wait", "web-1"], wrong].concat();
        assert_eq!(run(&daemon, &args).await.0, 2, "{args:?}");
    }
}

#[tokio::test]
async fn a_wait_that_is_too_short_says_what_was_seen() {
    let (daemon, vm, _guest) = ready(None).await;
    let says = async |args: &[&str], expected: &[&str]| {
        let (code, _, stderr) = run(&daemon, &[args, &["--timeout", "600ms"]].concat()).await;
        assert_eq!(code, 1, "{args:?}");
        for text in expected {
            assert!(stderr.contains(text), "{args:?}: {stderr}");
        }
    };
    let reboot = ["reboot", "web-1", "--wait"];
    let old_boot = "web-1 is ready, still in the boot web-1 boot 1";
    says(&reboot, &["not rebooted within 600ms", old_boot]).await;
    says(&["poweroff", "web-1", "--wait"], &["not powered off within 600ms: web-1 is ready"]).await;
    vm.switch_to(Behaviour::Refuses);
    daemon.until_state("web-1", "unreachable").await;
    let wait = ["wait", "web-1", "--rebooted-since", "web-1 boot 1"];
    says(&wait, &["not rebooted within 600ms: web-1 is unreachable: powered off or shut"]).await;
}

#[tokio::test]
async fn a_poweroff_that_is_waited_for_ends_when_the_guest_has_halted_and_says_how_to_end_the_vmm()
{
    let (daemon, vm, guest) = ready(Some("firecracker")).await;
    let mut poweroff = start(&daemon, &["poweroff", "web-1", "--wait"]);
    asked(&guest).await;
    // The agent has ended; the guest's kernel still runs, and file systems may be in use.
    vm.switch_to(Behaviour::Refuses);
    daemon.until_state("web-1", "unreachable").await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(poweroff.try_wait().unwrap(), None, "it did not wait for the guest's end");
    vm.switch_to(Behaviour::NeverGrants);
    let (code, stdout, stderr) = ended(poweroff).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("powered off") && stdout.contains(&format!("kill {}", vm.pid())));
    let (code, _, stderr) = run(&daemon, &["health", "web-1"]).await;
    assert!(code == 1 && !stderr.contains("minions-agent"), "{stderr}");
    let (_, stdout, _) = run(&daemon, &["get", "web-1"]).await;
    assert!(stdout.contains("powered off"), "{stdout}");
}

#[tokio::test]
async fn a_poweroff_that_is_waited_for_ends_with_the_vmm() {
    for leaves_its_file in [false, true] {
        let (daemon, vm, guest) = ready(Some("cloud-hyperviso")).await;
        let poweroff = start(&daemon, &["poweroff", "web-1", "--wait"]);
        asked(&guest).await;
        if leaves_its_file {
            vm.crash()
        } else {
            drop(vm)
        }
        let (code, stdout, stderr) = ended(poweroff).await;
        assert!(code == 0 && stdout.contains("powered off"), "{stdout}{stderr}");
        if leaves_its_file {
            let stale = daemon.get("/vms/web-1").await;
            assert_eq!(failure(&stale), "powered_off");
            assert!(stdout.contains("rm -f "), "{stdout}");
        }
    }
}

#[tokio::test]
async fn an_agent_alone_cannot_be_waited_for() {
    let (daemon, vm, guest) = ready(None).await;
    let socket = vm.path().to_str().unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_minionsctl"))
        .args(["--socket", socket, "reboot", "--wait"])
        .output();
    let output = timeout(DEADLINE, command).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("--wait needs minionsd"), "{stderr}");
    assert_eq!(guest.power_requests(), 0);
    drop(daemon);
}
