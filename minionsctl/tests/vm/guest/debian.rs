//! A Debian image with the agent installed becomes a VM that the host controls.

use super::machine::{Disk, Machine};
use crate::boot::BOOT;
use serde_json::json;
use testkit::daemon::TestDaemon;

const VM: &str = "debian";

#[tokio::test(flavor = "multi_thread")]
async fn debian_becomes_ready_gets_a_network_and_is_ready_after_a_reboot() {
    let disk = Disk::installed();
    let daemon = TestDaemon::start().await;
    let mut machine = Machine::on(&disk, VM, daemon.sockets());
    let first = daemon.until_state(VM, "ready").await;
    assert_eq!(
        machine.printed("systemctl is-active minions-agent.socket minions-agent"),
        "active\nactive"
    );
    assert_eq!(machine.printed("ls /etc/systemd/network"), "");

    let ping = ["-c", "1", "-W", "5", "10.0.2.2"];
    assert_ne!(daemon.exec(VM, "ping", &ping).await.json["exit_code"], 0);
    let network = json!({ "ip": "10.0.2.15/24", "gateway": "10.0.2.2", "dns": ["10.0.2.3"] });
    let put = daemon.put(&format!("/vms/{VM}/network"), network).await;
    assert_eq!(put.status, 200, "{put:?}");
    let pinged = daemon.exec(VM, "ping", &ping).await;
    assert_eq!(pinged.json["exit_code"], 0, "{pinged:?}");

    let boot = machine.printed("cat /proc/sys/kernel/random/boot_id");
    machine.last_words("systemctl --no-block reboot");
    machine.vm.wait_for_end(BOOT).unwrap_or_else(|error| panic!("{error}"));
    drop(machine);
    let machine = Machine::on(&disk, VM, daemon.sockets());
    let second = daemon.until_state(VM, "ready").await;
    assert_ne!(machine.printed("cat /proc/sys/kernel/random/boot_id"), boot);
    assert_ne!(first.json["since"], second.json["since"]);
}
