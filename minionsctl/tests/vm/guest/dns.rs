//! Name servers survive systemd-resolved and systemd-networkd.

use super::machine::{Disk, Machine, minionsctl};
use serde_json::Value;

const NETWORK: [&str; 7] =
    ["configure-network", "--ip", "10.0.2.15/24", "--gateway", "10.0.2.2", "--dns", "10.0.2.3"];

/// Script that writes a networkd configuration for every interface. networkd would apply it if the agent did not
/// prevent that.
const NETWORKD: &str = "printf '[Match]\\nName=e*\\n[Network]\\nAddress=10.99.99.99/24\\n\
    DNS=10.99.99.53\\n' >/etc/systemd/network/50-foreign.network";

/// Script that prints the network, without counters and without link-local addresses, which the kernel assigns at
/// any time.
const STATE: &str = "ip -4 addr show | grep -o 'inet [^ ]*'; ip -4 route; ip -6 route show default
    readlink /etc/resolv.conf; cat /etc/resolv.conf; resolvectl dns; resolvectl domain";

#[test]
fn a_network_set_by_the_host_survives_restarts_of_resolved_and_networkd() {
    let disk = Disk::installed();
    let machine = Machine::debian(&disk, "dns");
    // As soon as the agent answers. The interface and systemd-resolved may not exist yet.
    let set = minionsctl(machine.vm.socket_path(), &NETWORK);
    assert!(set.status.success(), "{set:?}");
    let set: Value = serde_json::from_slice(&set.stdout).unwrap();
    assert_eq!(set["dns_owner"], "systemd_resolved", "{set}");
    let servers = "resolvectl dns | grep -x 'Global: 10.0.2.3' || true";
    machine.until_printed(servers);
    let expected = machine.printed(STATE);
    assert!(expected.contains("10.0.2.15/24") && expected.contains("via 10.0.2.2"), "{expected}");
    assert!(expected.contains("stub-resolv.conf"), "{expected}");

    machine.printed(NETWORKD);
    machine.printed("systemctl start systemd-networkd");
    let unmanaged = "networkctl --no-legend list | grep -v ' lo ' | grep -w unmanaged || true";
    machine.until_printed(unmanaged);
    assert_eq!(machine.printed(STATE), expected, "after a start of systemd-networkd");
    for service in ["systemd-resolved", "systemd-networkd"] {
        machine.printed(&format!("systemctl restart {service}"));
        assert_eq!(machine.printed(&format!("systemctl is-active {service}")), "active");
        machine.until_printed(servers);
        machine.until_printed(unmanaged);
        assert_eq!(machine.printed(STATE), expected, "after a restart of {service}");
    }
    machine.printed("ping -c 1 -W 5 10.0.2.2");
}
