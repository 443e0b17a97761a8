//! DNS servers survive those who think that DNS is theirs.

use crate::machine::{Disk, Machine, minionsctl};
use serde_json::Value;

const NETWORK: [&str; 7] =
    ["configure-network", "--ip", "10.0.2.15/24", "--gateway", "10.0.2.2", "--dns", "10.0.2.3"];

/// What somebody has for every interface, and would have networkd do if the host did nothing.
const NETWORKD: &str = "printf '[Match]\\nName=e*\\n[Network]\\nAddress=10.99.99.99/24\\n\
    DNS=10.99.99.53\\n' >/etc/systemd/network/50-somebodys.network";

/// Without counters, and without what the kernel does in its own time (link-local addresses).
const STATE: &str = "ip -4 addr show | grep -o 'inet [^ ]*'; ip -4 route; ip -6 route show default
    readlink /etc/resolv.conf; cat /etc/resolv.conf; resolvectl dns; resolvectl domain";

#[test]
fn what_the_host_sets_survives_resolved_and_networkd_started_and_restarted_after_it() {
    let disk = Disk::installed();
    let machine = Machine::debian(&disk, "dns");
    // As soon as the agent answers: neither a card nor systemd-resolved need be there by now.
    let set = minionsctl(machine.vm.socket_path(), &NETWORK);
    assert!(set.status.success(), "{set:?}");
    let set: Value = serde_json::from_slice(&set.stdout).unwrap();
    assert_eq!(set["dns_owner"], "systemd_resolved", "{set}");
    let servers = "resolvectl dns | grep -x 'Global: 10.0.2.3' || true";
    machine.until_printed(servers);
    let alone = machine.printed(STATE);
    assert!(alone.contains("10.0.2.15/24") && alone.contains("via 10.0.2.2"), "{alone}");
    assert!(alone.contains("stub-resolv.conf"), "{alone}");

    machine.printed(NETWORKD);
    machine.printed("systemctl start systemd-networkd");
    let left_alone = "networkctl --no-legend list | grep -v ' lo ' | grep -w unmanaged || true";
    machine.until_printed(left_alone);
    assert_eq!(machine.printed(STATE), alone, "after a start of systemd-networkd");
    for service in ["systemd-resolved", "systemd-networkd"] {
        machine.printed(&format!("systemctl restart {service}"));
        assert_eq!(machine.printed(&format!("systemctl is-active {service}")), "active");
        machine.until_printed(servers);
        machine.until_printed(left_alone);
        assert_eq!(machine.printed(STATE), alone, "after a restart of {service}");
    }
    machine.printed("ping -c 1 -W 5 10.0.2.2");
}
