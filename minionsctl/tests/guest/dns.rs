//! DNS servers survive those who think that DNS is theirs.

use crate::machine::{CARD, Disk, Machine, minionsctl};

const NETWORK: [&str; 7] =
    ["configure-network", "--ip", "10.0.2.15/24", "--gateway", "10.0.2.2", "--dns", "10.0.2.3"];

#[test]
fn a_restart_of_resolved_or_networkd_leaves_addresses_routes_and_servers_as_they_were() {
    let disk = Disk::installed();
    let machine = Machine::debian(&disk, "dns");
    machine.printed("systemctl start systemd-networkd systemd-resolved");
    machine.until_printed(CARD);
    let set = minionsctl(machine.vm.socket_path(), &NETWORK);
    assert!(set.status.success(), "{set:?}");
    // Without counters, and without what the kernel does in its own time (link-local addresses).
    let state =
        "ip -4 addr show | grep -o 'inet [^ ]*'; ip -4 route; cat /etc/resolv.conf; resolvectl dns";
    let before = machine.printed(state);
    assert!(before.contains("10.0.2.15/24") && before.contains("10.0.2.3"), "{before}");
    for service in ["systemd-resolved", "systemd-networkd"] {
        machine.printed(&format!("systemctl restart {service}"));
        let active = format!("systemctl is-active {service}");
        assert_eq!(machine.printed(&active), "active");
        assert_eq!(machine.printed(state), before, "after a restart of {service}");
    }
    machine.printed("ping -c 1 -W 5 10.0.2.2");
}
