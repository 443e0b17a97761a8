//! The whole system with a real guest kernel and AF_VSOCK: VMs under QEMU, minionsd in this process, and minionsctl
//! as a user runs it.

use crate::boot::{AGENT_PORT, BOOT, boot};
use crate::shared::command::{Ran, ctl, direct};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::daemon::{Reply, TestDaemon};
use testkit::rig::{Vm, VmConfig};
use testkit::wait::until_async;

pub(crate) const VM: &str = "agent-test-vm";

/// Settings for QEMU's user network, whose gateway is QEMU itself.
const NETWORK: [&str; 6] =
    ["--ip", "10.0.2.15/24", "--gateway", "10.0.2.2", "--dns", "1.1.1.1,9.9.9.9"];

/// Starts a daemon and a VM, and waits until the VM is ready. The VM is dropped first.
pub(crate) async fn ready() -> (Vm, TestDaemon) {
    let daemon = TestDaemon::start().await;
    let vm = boot(VmConfig::new(VM, daemon.sockets()));
    daemon.until_state(VM, "ready").await;
    (vm, daemon)
}

async fn shell(daemon: &TestDaemon, script: &str) -> Reply {
    daemon.exec(VM, "sh", &["-c", script]).await
}

/// Runs a script in the guest, and returns its output.
async fn printed(daemon: &TestDaemon, script: &str) -> String {
    let ran = shell(daemon, script).await;
    assert_eq!(ran.json["exit_code"], 0, "{ran:?}");
    ran.json["stdout"].as_str().unwrap().trim().to_owned()
}

fn eth0(network: &Reply) -> Value {
    let interfaces = network.json["interfaces"].as_array().unwrap();
    interfaces.iter().find(|interface| interface["name"] == "eth0").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_work_by_rest_by_minionsctl_and_without_the_daemon() {
    let (vm, daemon) = ready().await;
    let ctl = |args: &[&str]| Ran::of(&mut ctl(&daemon.host(), args));
    let direct = |args: &[&str]| Ran::of(&mut direct(vm.socket_path(), args)).json();

    assert_eq!(daemon.get(&format!("/vms/{VM}/health")).await.json["hostname"], VM);
    ctl(&["health", VM]).assert(0, VM, "");
    assert_eq!(direct(&["health"])["hostname"], VM);

    let ping = ["ping", "-c", "1", "-W", "5", "10.0.2.2"];
    let before = daemon.exec(VM, ping[0], &ping[1..]).await;
    assert_ne!(before.json["exit_code"], 0, "there is no network yet: {before:?}");
    let body = json!({ "ip": "10.0.2.15/24", "gateway": "10.0.2.2", "dns": ["1.1.1.1"] });
    let put = daemon.put(&format!("/vms/{VM}/network"), body).await;
    assert_eq!((put.status, &put.json["message"]), (200, &json!("network configured")));
    ctl(&[&["configure-network", VM], &NETWORK[..]].concat()).assert(0, "configured", "");
    assert_eq!(direct(&[&["configure-network"], &NETWORK[..]].concat())["status"], "ok");

    assert_eq!(daemon.exec(VM, ping[0], &ping[1..]).await.json["exit_code"], 0);
    ctl(&[&["exec", VM, "--"], &ping[..]].concat()).assert(0, "1 packets received", "");
    assert_eq!(direct(&[&["exec", "--"], &ping[..]].concat())["exit_code"], 0);

    let status = daemon.get(&format!("/vms/{VM}/status")).await;
    assert!((100..256).contains(&status.json["memory_total_mb"].as_u64().unwrap()), "{status:?}");
    ctl(&["status", VM]).assert(0, "10.0.2.15/24", "");
    assert_eq!(direct(&["status"])["kernel"], status.json["kernel"]);
    ctl(&["network", VM]).assert(0, "10.0.2.15/24", "");

    ctl(&["quiesce", VM, "--", "echo", "snapshot"]).assert(0, "snapshot", "");
    // The guest's root file system is in memory.
    let frozen = ctl(&["quiesce", "--freeze-fs", VM, "--", "echo", "snapshot"]);
    frozen.assert(
        125,
        "",
        "none of the guest's file systems can be frozen: its root file system is \"",
    );
    ctl(&["thaw", VM]).assert(1, "", "the guest is not quiesced: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_replaced_and_an_invalid_one_changes_nothing() {
    let (_vm, daemon) = ready().await;
    let path = format!("/vms/{VM}/network");
    // Without the link-local address, which the kernel assigns at any time.
    let state = "ip addr show eth0 | grep inet | grep -v fe80; ip route; ip -6 route show default; cat /etc/resolv.conf";
    let old = "ip addr add 192.168.7.7/24 dev eth0; ip link set eth0 up; ip route add default via 192.168.7.1";
    shell(&daemon, old).await;
    let good =
        json!({ "ip": "10.0.2.15/24", "gateway": "10.0.2.2", "dns": ["1.1.1.1", "9.9.9.9"] });
    assert_eq!(daemon.put(&path, good.clone()).await.status, 200);
    let once = printed(&daemon, state).await;
    assert!(once.contains("inet 10.0.2.15/24 brd 10.0.2.255"), "{once}");
    assert!(
        once.contains("default via 10.0.2.2 dev eth0") && !once.contains("192.168.7"),
        "{once}"
    );
    assert!(once.contains("nameserver 1.1.1.1\nnameserver 9.9.9.9"), "{once}");
    assert_eq!(daemon.put(&path, good).await.status, 200);
    assert_eq!(printed(&daemon, state).await, once, "the same request twice changes nothing");
    for (ip, gateway) in [
        ("10.0.0.2/33", "10.0.0.1"),
        ("fe80::1/129", "fe80::2"),
        ("10.0.0.2/16", "10.9.0.1"),
        ("0.0.0.0/8", "0.0.0.1"),
    ] {
        let bad = json!({ "ip": ip, "gateway": gateway, "dns": [] });
        daemon.put(&path, bad).await.assert_problem(422, "invalid_request");
    }
    assert_eq!(printed(&daemon, state).await, once, "an invalid request changes nothing");
    let v6 = json!({ "ip": "fec0::99/64", "gateway": "fec0::2", "dns": [] });
    assert_eq!(daemon.put(&path, v6).await.status, 200);
    let read_back = eth0(&daemon.get(&path).await);
    let addresses = read_back["addresses"].as_array().unwrap();
    let global: Vec<_> =
        addresses.iter().filter(|ip| !ip.as_str().unwrap().starts_with("fe80")).collect();
    assert_eq!(global, [&json!("fec0::99/64")], "{read_back}");
    let pinged = daemon.exec(VM, "ping", &["-6", "-c", "1", "-W", "5", "fec0::2"]).await;
    assert_eq!(pinged.json["exit_code"], 0, "{pinged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vm_is_noticed_does_not_affect_others_and_recovers() {
    let (mut vm, daemon) = ready().await;
    let _other = boot(VmConfig::new("other-vm", daemon.sockets()));
    let other = daemon.until_state("other-vm", "ready").await;
    let before = daemon.get(&format!("/vms/{VM}")).await;
    vm.kill();
    daemon.until(&format!("/vms/{VM}"), |vm| vm.status == 404 || vm.json["state"] != "ready").await;
    let health = daemon.get(&format!("/vms/{VM}/health")).await;
    assert!(matches!(health.status, 404 | 503), "{health:?}");
    assert_eq!(daemon.get("/vms/other-vm/health").await.status, 200);
    drop(vm);
    let _vm = boot(VmConfig::new(VM, daemon.sockets()));
    let after = daemon.until_state(VM, "ready").await;
    assert_ne!(after.json["agent"]["boot_id"], before.json["agent"]["boot_id"]);
    assert_eq!(printed(&daemon, "echo back").await, "back");
    assert_eq!(daemon.get("/vms/other-vm").await.json["since"], other.json["since"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_becomes_ready_again() {
    let (_vm, daemon) = ready().await;
    let before = daemon.get(&format!("/vms/{VM}")).await.json["agent"].clone();
    let killed = shell(&daemon, "kill -KILL $(pidof minions-agent)").await;
    killed.assert_problem(502, "connection_lost");
    assert_eq!(killed.json["may_have_executed"], true);
    let after = daemon
        .until(&format!("/vms/{VM}"), |vm| {
            vm.json["state"] == "ready" && vm.json["agent"]["instance_id"] != before["instance_id"]
        })
        .await;
    assert_eq!(after.json["agent"]["boot_id"], before["boot_id"]);
    assert_eq!(daemon.get(&format!("/vms/{VM}/health")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_the_kernels_and_a_thousand_programs_leave_nothing() {
    let (_vm, daemon) = ready().await;
    for (script, code) in [("exit 37", 37), ("kill -SEGV $$", 139), ("kill -KILL $$", 137)] {
        assert_eq!(shell(&daemon, script).await.json["exit_code"], code, "{script}");
    }
    daemon.exec(VM, "/nowhere", &[]).await.assert_problem(422, "command_not_found");
    daemon.exec(VM, "/etc/passwd", &[]).await.assert_problem(422, "command_not_executable");
    let stubborn = "trap '' TERM; sleep 987 & sleep 987 & wait";
    let body = json!({ "command": "sh", "args": ["-c", stubborn], "timeout_ms": 300 });
    let late = daemon.post(&format!("/vms/{VM}/exec"), body).await;
    assert_eq!(late.json["outcome"]["type"], "timed_out", "{late:?}");
    // The brackets keep grep from counting its own command line and the shell's.
    assert_eq!(printed(&daemon, "ps -o args | grep -c '[s]leep 987' || true").await, "0");
    let detached = shell(&daemon, "sleep 600 & echo hi").await;
    assert_eq!(detached.json["stdout"], "hi\n");
    printed(&daemon, "kill $(pidof sleep)").await;

    printed(&daemon, "echo -500 > /proc/$(pidof minions-agent)/oom_score_adj").await;
    let exposed = "until [ $(cat /proc/$$/oom_score_adj) = 0 ]; do :; done; echo exposed";
    assert_eq!(
        printed(&daemon, exposed).await,
        "exposed",
        "the program inherits the agent's oom_score_adj"
    );

    // Kernel threads, which `ps` shows in brackets, come and go.
    let figures = "pid=$(pidof minions-agent); ls /proc/$pid/fd | wc -l; ps -o args | grep -vc '^\\['; \
                   grep -c 'State:.Z' /proc/[0-9]*/status | grep -v ':0' | wc -l";
    let before = printed(&daemon, figures).await;
    for _ in 0..1000 {
        assert_eq!(daemon.exec(VM, "true", &[]).await.json["exit_code"], 0);
    }
    // Leaks are permanent; processes that are still ending are not leaks.
    until_async(&format!("descriptors, processes and zombies are again {before}"), async || {
        let after = printed(&daemon, figures).await;
        if after == before { Ok(()) } else { Err(after) }
    })
    .await;
    println!(
        "{}",
        printed(&daemon, "grep -E '^(Vm(HWM|RSS)|Rss)' /proc/$(pidof minions-agent)/status").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_user_of_the_guest_is_served_or_can_take_the_agents_port() {
    let (_vm, daemon) = ready().await;
    let cid = printed(&daemon, "vsock-probe cid").await;
    assert!(cid.parse::<u32>().is_ok_and(|cid| cid > 2), "{cid}");
    // Loopback and the guest's own CID, also as root: none of these is the host.
    for target in ["1", &cid] {
        for user in ["alice", "root"] {
            let probe =
                format!("su -s /bin/sh {user} -c 'vsock-probe connect {target} {AGENT_PORT}'");
            let answer = printed(&daemon, &probe).await;
            assert!(
                matches!(answer.as_str(), "closed" | "refused"),
                "{user} to {target}: {answer}"
            );
        }
    }
    let bind = format!("su -s /bin/sh alice -c 'vsock-probe bind {AGENT_PORT}'");
    assert_eq!(printed(&daemon, &bind).await, "refused");
    let elsewhere = "su -s /bin/sh alice -c 'vsock-probe bind 1025'";
    assert_eq!(
        printed(&daemon, elsewhere).await,
        "bound",
        "the probe must be able to bind another port"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_reports_that_its_port_is_in_use_and_is_reached_on_another_port() {
    let (vm, daemon) = ready().await;
    let second = shell(&daemon, "minions-agent --log-level error").await;
    assert_eq!(second.json["exit_code"], 1, "{second:?}");
    let stderr = second.json["stderr"].as_str().unwrap();
    assert!(stderr.contains("VSOCK port 1024 is in use by another process"), "{stderr}");
    let other = "exec minions-agent --log-level error --port 2048";
    let body = json!({ "command": "sh", "args": ["-c", other], "detach": true });
    assert_eq!(daemon.post(&format!("/vms/{VM}/exec"), body).await.status, 202);
    let health = until_async("the second agent answers", async || {
        let ran = Ran::of(&mut direct(vm.socket_path(), &["--port", "2048", "health"]));
        if ran.code == 0 { Ok(ran.json()) } else { Err(ran.stderr) }
    })
    .await;
    let first = daemon.get(&format!("/vms/{VM}/health")).await.json;
    assert_eq!(health["agent"]["boot_id"], first["agent"]["boot_id"]);
    assert_ne!(health["agent"]["instance_id"], first["agent"]["instance_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_reported_and_can_be_set() {
    const HOUR_MS: i64 = 3_600_000;
    let (vm, daemon) = ready().await;
    let offset = async || {
        let health = daemon.get(&format!("/vms/{VM}/health")).await;
        health.json["clock_offset_ms"].as_i64().unwrap_or_else(|| panic!("{health:?}"))
    };
    // 2033-05-18.
    let clock = format!("/vms/{VM}/clock");
    let put = daemon.put(&clock, json!({ "time_unix_ms": 2_000_000_000_000_u64 })).await;
    assert_eq!(put.status, 200, "{put:?}");
    assert!(offset().await > HOUR_MS);
    assert_eq!(printed(&daemon, "date -u +%Y").await, "2033");
    // Timeouts use the monotonic clock and are not affected.
    let body = json!({ "command": "sleep", "args": ["77"], "timeout_ms": 300 });
    let slept = daemon.post(&format!("/vms/{VM}/exec"), body).await;
    assert_eq!(slept.json["outcome"]["type"], "timed_out", "{slept:?}");
    Ran::of(&mut ctl(&daemon.host(), &["set-clock", VM])).assert(0, "clock moved by -", "");
    assert!(offset().await.abs() < HOUR_MS);

    let wrong = daemon.put(&clock, json!({ "time_unix_ms": 2_000_000_000 })).await;
    wrong.assert_problem(422, "invalid_request");
    assert_eq!(wrong.json["field"], "time_unix_ms");
    let set = ["set-clock", "--time", "2033-05-18T03:33:20Z"];
    Ran::of(&mut direct(vm.socket_path(), &set)).assert(0, "step_ms", "");
    assert!(offset().await > HOUR_MS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_sets_a_wrong_clock_if_it_is_configured_to() {
    let limit = Some(Duration::from_secs(60));
    let daemon = TestDaemon::with(|config| config.clock_limit = limit).await;
    let _vm = boot(VmConfig::new(VM, daemon.sockets()));
    daemon.until_state(VM, "ready").await;
    // Without the daemon's involvement.
    printed(&daemon, "date -s '2033-05-18 00:00:00'").await;
    let path = format!("/vms/{VM}/health");
    let right = |health: &Reply| {
        health.json["clock_offset_ms"].as_i64().is_some_and(|ms| ms.abs() < 3_600_000)
    };
    daemon.until(&path, right).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_powers_off_after_it_has_accepted_the_request() {
    let (mut vm, daemon) = ready().await;
    let body = json!({ "action": "explode" });
    let refused = daemon.post(&format!("/vms/{VM}/power"), body).await;
    refused.assert_problem(422, "invalid_request");
    assert_eq!(refused.json["field"], "action");
    assert_eq!(daemon.get(&format!("/vms/{VM}/health")).await.status, 200);
    Ran::of(&mut ctl(&daemon.host(), &["poweroff", VM])).assert(0, "powered off", "");
    vm.wait_for_end(BOOT).unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_reboot_that_was_waited_for_runs_in_the_new_boot() {
    let (vm, daemon) = ready().await;
    let host = daemon.host();
    for _ in 0..2 {
        let before = printed(&daemon, "cat /proc/sys/kernel/random/boot_id").await;
        let script = format!(
            "$CTL reboot {VM} --wait --timeout {}s && $CTL exec {VM} -- cat /proc/sys/kernel/random/boot_id",
            BOOT.as_secs()
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("CTL", env!("CARGO_BIN_EXE_minionsctl"))
            .env("MINIONS_HOST", &host)
            .output();
        let output = output.unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{stdout}{stderr}{}", vm.serial_log());
        let after = stdout.lines().last().unwrap();
        assert!(after.len() == before.len() && after != before, "{stdout}");
        assert!(stdout.contains(&format!("{VM} is ready (boot_id {after})")), "{stdout}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poweroff_that_is_waited_for_is_over_and_stays_the_reason() {
    let (mut vm, daemon) = ready().await;
    let poweroff = Ran::of(&mut ctl(&daemon.host(), &["poweroff", VM, "--wait"]));
    poweroff.assert(0, "powered off", "");
    vm.wait_for_end(BOOT).unwrap_or_else(|error| panic!("{error}"));
    let off = daemon.get(&format!("/vms/{VM}")).await;
    assert_eq!(off.json["reason"]["failure"], "powered_off", "{off:?}");
    assert_eq!(off.json["reason"]["halted"], true, "{off:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_host_tool_drives_the_agent_in_the_vm() {
    let (vm, _daemon) = ready().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/peers/base_host.py");
    let host = |args: &[&str]| -> Value {
        let mut python = Command::new("python3");
        let output = python.arg(&script).arg(vm.socket_path()).args(args).stdin(Stdio::null());
        let output = output.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(host(&["health"])["hostname"], VM);
    assert!(host(&["status"])["memory_used_mb"].is_u64());
    let network = host(&["network", "10.0.2.15/24", "10.0.2.2", "1.1.1.1"]);
    assert_eq!(network["message"], "network configured");
    assert_eq!(host(&["exec", "ping", "-c", "1", "10.0.2.2"])["exit_code"], 0);
    let wrote = host(&["write", "/root/.ssh/authorized_keys", "600", "ssh-ed25519 AAAA"]);
    assert!(wrote["message"].as_str().unwrap().starts_with("wrote 16 bytes"), "{wrote}");
    let mode = host(&["exec", "stat", "-c", "%a %s", "/root/.ssh/authorized_keys"]);
    assert_eq!(mode["stdout"], "600 16\n");
}
