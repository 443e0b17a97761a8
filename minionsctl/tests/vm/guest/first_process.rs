//! The agent as the first process of a guest (`minions-agent --init`).

use super::machine::{Machine, SOON, minionsctl};
use testkit::rig::wait_until;

/// Script that prints the zombies.
const ZOMBIES: &str = "ls -d /proc/[0-9]* | while read -r p; do \
    read -r _ _ state _ <$p/stat 2>/dev/null && [ \"$state\" = Z ] && echo $p; done; true";

fn ends(mut machine: Machine) {
    machine.vm.wait_for_end(SOON).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn hundreds_of_orphans_are_reaped_and_no_exit_code_is_lost() {
    let machine = Machine::agent_first("orphans");
    assert_eq!(
        machine.printed("hostname; tr '\\0' ' ' </proc/1/cmdline"),
        "orphans\n/usr/bin/minions-agent --init"
    );
    assert_eq!(machine.printed("ip -o addr show lo | grep -c 127.0.0.1"), "1");
    for code in 0..20 {
        // Each script leaves fifteen orphans, some of which end before it and some after it.
        let script = format!(
            "i=0; while [ $i -lt 15 ]; do \
             (setsid sleep 0.0$((i % 9)) </dev/null >/dev/null 2>&1 &); \
             i=$((i + 1)); done; exit {code}"
        );
        assert_eq!(machine.sh(&script)["exit_code"], code);
    }
    wait_until("all are reaped", SOON, || Ok(machine.printed(ZOMBIES).is_empty().then_some(())))
        .unwrap_or_else(|error| panic!("{error}: {}", machine.printed("ps -o pid,ppid,stat,args")));
    assert_eq!(machine.sh("exit 7")["exit_code"], 7);
}

#[test]
fn a_killed_agent_is_restarted_and_finds_the_processes_it_left() {
    let machine = Machine::agent_first("again");
    let first = machine.instance();
    machine.printed("setsid sleep 1234 </dev/null >/dev/null 2>&1 & true");
    machine.last_words("kill -9 $PPID");
    machine.until_another(&first);
    assert!(machine.vm.serial_log().contains("init: the agent ended (signal 9)"));
    let execs = machine.execs();
    assert_eq!(execs.len(), 1, "{execs:?}");
    let (id, left) = execs.first_key_value().unwrap();
    assert_eq!((&left["outcome"]["type"], &left["left_running"]), (&"lost".into(), &1.into()));
    assert!(minionsctl(machine.vm.socket_path(), &["kill", "--remove", id]).status.success());
    assert_eq!(machine.printed("pgrep -f 'sleep 123[4]' || true"), "");
}

#[test]
fn a_signal_to_init_powers_the_guest_off() {
    for signal in ["USR2", "PWR", "38"] {
        let machine = Machine::agent_first("off");
        machine
            .last_words(&format!("mkdir /tmp/m && mount -t tmpfs tmpfs /tmp/m; kill -{signal} 1"));
        ends(machine);
    }
}

#[test]
fn a_program_that_ignores_signals_does_not_prevent_a_power_off() {
    let machine = Machine::agent_first("deaf");
    machine.printed(
        "(trap '' TERM HUP; while :; do sleep 1; done) </dev/null >/dev/null 2>&1 & sleep 0.2",
    );
    machine.last_words("kill -TERM 1");
    ends(machine);
}

#[test]
fn a_power_request_powers_the_guest_off() {
    let machine = Machine::agent_first("asked");
    let asked = minionsctl(machine.vm.socket_path(), &["poweroff"]);
    assert!(asked.status.success(), "{asked:?}");
    ends(machine);
}
