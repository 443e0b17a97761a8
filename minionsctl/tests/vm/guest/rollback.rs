//! Rollback of a network that does not work, under a real systemd.

use super::machine::{Disk, Machine, SOON, minionsctl};
use serde_json::Value;
use testkit::rig::wait_until;

/// Script that prints everything that a change may affect, without packet counters.
const STATE: &str =
    "ip -d addr; ip -d -4 route show table all; ip -d -6 route show table all | sort
    hostname; cat /proc/sys/net/ipv6/conf/e*/accept_ra
    stat -c '%A %u:%g %F' /etc/resolv.conf; readlink /etc/resolv.conf; cat /etc/resolv.conf
    resolvectl dns; resolvectl domain
    cd /run/systemd; for file in resolved.conf.d/* network/*; do echo $file; cat $file; done";

const GOOD: [&str; 9] = [
    "configure-network",
    "--ip",
    "10.0.2.15/24",
    "--gateway",
    "10.0.2.2",
    "--dns",
    "10.0.2.3",
    "--hostname",
    "before",
];

const WRONG: [&str; 11] = [
    "configure-network",
    "--ip",
    "10.0.2.99/24",
    "--gateway",
    "10.0.2.77",
    "--dns",
    "9.9.9.9,10.0.2.3",
    "--search",
    "after.example",
    "--hostname",
    "after",
];

/// Waits until the state is `before` again. The kernel first checks restored addresses for duplicates.
fn is_again(machine: &Machine, before: &str) {
    let same = || Ok((machine.printed(STATE) == before).then_some(()));
    wait_until("the old network is restored", SOON, same)
        .unwrap_or_else(|error| panic!("{error}: {before}\n\n{}", machine.printed(STATE)));
}

#[test]
fn a_wrong_gateway_and_a_silent_host_leave_the_old_network() {
    let disk = Disk::installed();
    let machine = Machine::debian(&disk, "back");
    let socket = machine.vm.socket_path();
    let set = minionsctl(socket, &GOOD);
    assert!(set.status.success(), "{set:?}");
    machine.until_printed("resolvectl dns | grep -x 'Global: 10.0.2.3' || true");
    machine.until_printed("ip -6 addr show scope link -tentative | grep inet6 || true");
    let before = machine.printed(STATE);
    assert!(before.contains("10.0.2.15/24") && before.contains("before"), "{before}");

    let refused = minionsctl(socket, &[&WRONG[..], &["--verify", "gateway"]].concat());
    assert!(!refused.status.success(), "{refused:?}");
    let output = String::from_utf8_lossy(&refused.stderr).into_owned()
        + &String::from_utf8_lossy(&refused.stdout);
    assert!(output.contains("10.0.2.77") && output.contains("as it was before"), "{output}");
    is_again(&machine, &before);
    machine.printed("ping -c 1 -W 5 10.0.2.2");

    let silent = [&WRONG[..], &["--verify", "none", "--confirm-within", "20s"]].concat();
    let pending = minionsctl(socket, &silent);
    assert!(pending.status.success(), "{pending:?}");
    let pending: Value = serde_json::from_slice(&pending.stdout).unwrap();
    assert_eq!(pending["dns_owner"], "systemd_resolved", "{pending}");
    assert_eq!(machine.printed("hostname"), "after");
    is_again(&machine, &before);
    machine.printed("ping -c 1 -W 5 10.0.2.2");
}
