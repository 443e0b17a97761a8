//! The agent ends while its guest runs on.

use crate::host::{AGENT_PORT, BOOT, Host, VM};
use testkit::wait::until_async_within;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_crash_during_exec_is_a_502_and_the_vm_is_ready_again() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    let running = host.under_way("sleep 300").await;
    host.vm.kill_agent(AGENT_PORT).unwrap();
    let lost = running.await.unwrap();
    lost.assert_problem(502, "connection_lost");
    assert_eq!(lost.json["may_have_executed"], true, "{lost:?}");
    let after = host.until_another(&before).await;
    assert_eq!(after["boot_id"], before["boot_id"]);
    assert_eq!(host.prints("echo back").await, "back");
    assert_eq!(host.daemon.ended(), None);
}

/// Number of restarts. An emulated guest needs two seconds for each; `tests/it/agent_restarts.rs` has more, of an agent
/// without a VM.
const RESTARTS: usize = 25;

#[tokio::test(flavor = "multi_thread")]
async fn after_each_agent_restart_the_vm_is_ready_and_nothing_leaks() {
    let mut host = Host::start().await;
    host.wait_for_agent();
    let mut agent = host.agent().await;
    let mut descriptors = 0;
    for round in 0..RESTARTS {
        let listening = listens(&host);
        host.vm.kill_agent(AGENT_PORT).unwrap();
        until_async_within(BOOT, "another agent listens", async || {
            if listens(&host) > listening { Ok(()) } else { Err((round, host.vm.serial_log())) }
        })
        .await;
        let listed = host
            .until("/vms", |vms| {
                let vm = &vms.json["vms"][0];
                vm["state"] == "ready" && vm["agent"]["instance_id"] != agent["instance_id"]
            })
            .await;
        agent = listed.json["vms"][0]["agent"].clone();
        assert_eq!(host.prints("echo back").await, "back", "round {round}");
        if round == 4 {
            descriptors = host.daemon.descriptors().unwrap();
        }
    }
    until_async_within(BOOT, "the daemon has no more descriptors than before", async || {
        let now = host.daemon.descriptors().unwrap();
        if now <= descriptors { Ok(()) } else { Err((descriptors, now)) }
    })
    .await;
    assert_eq!(host.look().await.json["name"], VM);
    assert_eq!(host.daemon.ended(), None);
}

/// Returns how often an agent has logged on the console that it listens.
fn listens(host: &Host) -> usize {
    host.vm.serial_log().matches("listening on vsock").count()
}
