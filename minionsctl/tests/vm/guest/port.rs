//! Services of systemd for the agent: the socket unit holds its port, and the watchdog restarts it if it hangs.

use super::machine::{Disk, Machine, SOON};
use testkit::rig::RigError;

/// Script that stops the agent's unit, tries to bind its port as an ordinary user, and prints the result to the
/// console. There is no connection meanwhile, so the agent stays stopped.
const TRY_TO_SQUAT: &str = "systemd-run --quiet --no-block --unit=squatter sh -c '
    systemctl stop minions-agent.service
    before=$(systemctl is-active minions-agent.service)
    bind=$(setpriv --reuid 65534 --regid 65534 --clear-groups vsock-probe bind 1024)
    other=$(setpriv --reuid 65534 --regid 65534 --clear-groups vsock-probe bind 1025)
    after=$(systemctl is-active minions-agent.service)
    echo squatter: $before $bind $other $after >/dev/ttyS0'";

#[test]
fn the_socket_unit_holds_the_port_and_starts_the_agent_for_a_caller() {
    let disk = Disk::installed();
    let mut machine = Machine::debian(&disk, "port");
    let first = machine.instance();
    machine.printed(TRY_TO_SQUAT);
    let result = machine
        .vm
        .wait_until("the squatter is done", SOON, |vm| {
            Ok::<_, RigError>(vm.serial_line("squatter: "))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(result, "inactive refused bound inactive");
    // The agent is still stopped; this connection starts it.
    assert_ne!(machine.instance(), first);
}

#[test]
fn a_hanging_agent_is_killed_and_restarted_on_the_same_port() {
    let disk = Disk::installed();
    let machine = Machine::debian(&disk, "watchdog");
    let first = machine.instance();
    let pid = "systemctl show -P MainPID minions-agent.service";
    // The unit's watchdog waits a minute; 4 s test the same mechanism.
    machine.last_words(
        "mkdir -p /run/systemd/system/minions-agent.service.d
        printf '[Service]\\nWatchdogSec=4\\n' >/run/systemd/system/minions-agent.service.d/test.conf
        systemctl daemon-reload
        systemctl --no-block restart minions-agent.service",
    );
    machine.until_another(&first);
    let instance = machine.instance();
    let before = machine.until_printed(pid);
    assert_eq!(machine.printed("systemctl show -P WatchdogUSec minions-agent.service"), "4s");
    // In a separate unit and with a delay, because the agent cannot answer once it is stopped.
    machine.printed(&format!("systemd-run --quiet --no-block --on-active=1 kill -STOP {before}"));
    machine.until_another(&instance);
    assert_ne!(machine.printed(pid), before);
    let result =
        machine.printed("journalctl -b -u minions-agent.service | grep -ci 'watchdog timeout'");
    assert!(result.parse::<u32>().unwrap() > 0);
}
