//! The agent survives its programs, and finds the programs of an earlier agent.

use super::machine::{Disk, Machine, SOON, minionsctl};
use serde_json::{Value, json};
use testkit::rig::wait_until;

/// Script that starts small processes until no memory is left.
const MANY_SMALL: &str = "while :; do
        sh -c 'text=$(head -c 400000 /dev/zero | tr \"\\0\" x); sleep 1000' &
    done";

/// Script that prints the guest's processes, except for kernel threads, init, the agent and the script itself.
const OTHERS: &str = "for process in /proc/[0-9]*; do
        read -r pid name state parent _ <$process/stat 2>/dev/null || continue
        [ $pid = 2 ] || [ $parent = 2 ] || [ $pid = 1 ] || [ $pid = $$ ] || [ $pid = $PPID ] ||
            echo $name
    done";

/// Waits for the outcome of the program. The agent must answer all the time.
fn outcome(machine: &Machine, id: &str) -> Value {
    let ended = || {
        let exec = machine.execs().remove(id).unwrap_or_else(|| panic!("{id} is not listed"));
        Ok(Some(exec["outcome"].clone()).filter(|outcome| !outcome.is_null()))
    };
    wait_until("the program ends", SOON, ended)
        .unwrap_or_else(|error| panic!("{error}\n{}", machine.vm.serial_log()))
}

#[test]
fn many_small_processes_that_use_all_memory_are_killed_and_the_agent_is_not() {
    let machine = Machine::tiny("many-small");
    let instance = machine.instance();
    for id in ["first", "second"] {
        machine.detach(id, &[], MANY_SMALL);
        let ended = json!({ "type": "signaled", "signal": 9, "core": false, "reason": "oom" });
        assert_eq!(outcome(&machine, id), ended);
    }
    assert_eq!(machine.instance(), instance, "the agent was restarted");
    let all_are_gone = || {
        let gone = machine.execs().values().all(|exec| exec["left_running"].is_null());
        Ok(gone.then_some(()))
    };
    wait_until("the killed processes are gone", SOON, all_are_gone)
        .unwrap_or_else(|error| panic!("{error}: {:?}", machine.execs()));
    wait_until("no other process runs", SOON, || {
        Ok(machine.printed(OTHERS).is_empty().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", machine.printed("ps")));
}

#[test]
fn a_program_that_exceeds_its_limits_does_not_affect_others() {
    let machine = Machine::tiny("limits");
    machine.detach("other", &[], "sleep 1000");
    let memory = ["--memory", "20000000"];
    machine.detach("eater", &memory, "text=$(head -c 100000000 /dev/zero | tr '\\0' x)");
    let ended = json!({ "type": "signaled", "signal": 9, "core": false, "reason": "oom" });
    assert_eq!(outcome(&machine, "eater"), ended);
    // The shell itself counts as one of the three.
    let forks = "for at in 1 2 3 4 5; do sleep 1 & done; wait";
    machine.detach("forker", &["--pids", "3"], forks);
    assert_eq!(outcome(&machine, "forker")["type"], "exited");
    let seen = minionsctl(machine.vm.socket_path(), &["attach", "forker"]);
    assert!(String::from_utf8_lossy(&seen.stderr).contains("fork"), "{seen:?}");
    assert!(machine.execs()["other"]["outcome"].is_null());
}

#[test]
fn programs_that_write_files_leave_no_control_groups_in_the_kernel() {
    let machine = Machine::tiny("groups");
    for at in 0..60 {
        machine.printed(&format!("echo {at} >/tmp/{at}"));
    }
    let dying = "sed -n 's/nr_dying_descendants //p' /sys/fs/cgroup/cgroup.stat";
    let dying: u32 = machine.printed(dying).parse().unwrap();
    assert!(dying < 10, "{dying} of 60");
    // Changes of a program to its control group do not affect the next program.
    machine.printed(
        "group=$(grep ^0:: /proc/self/cgroup | cut -d: -f3)
        echo 5000000 >/sys/fs/cgroup$group/memory.high; echo 1 >/sys/fs/cgroup$group/cpu.weight",
    );
    let fresh = "group=$(grep ^0:: /proc/self/cgroup | cut -d: -f3)
        cat /sys/fs/cgroup$group/memory.high /sys/fs/cgroup$group/cpu.weight";
    assert_eq!(machine.printed(fresh), "max\n100");
}

/// Starts five programs, kills the agent, and checks that the next agent lists them as lost and can end them.
fn five_lost(machine: &Machine, kill_agent: &str) {
    let ids = ["one", "two", "three", "four", "five"];
    for id in ids {
        machine.detach(id, &[], "sleep 1234 & wait");
    }
    let instance = machine.instance();
    let socket = machine.vm.socket_path();
    machine.last_words(kill_agent);
    machine.until_another(&instance);
    let execs = machine.execs();
    for id in ids {
        let exec = execs.get(id).unwrap_or_else(|| panic!("{id} is not listed: {execs:?}"));
        assert_eq!(exec["outcome"]["type"], "lost", "{exec}");
        assert_eq!(exec["left_running"], 2, "{exec}");
        let reason = exec["outcome"]["reason"].as_str().unwrap();
        assert!(reason.contains("the agent was restarted at "), "{reason}");
        // Attaching reports the loss, not an unknown id.
        let attached = minionsctl(socket, &["attach", id]);
        let stderr = String::from_utf8_lossy(&attached.stderr).into_owned();
        assert_eq!(attached.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains("the agent was restarted at "), "{stderr}");
    }
    for id in &ids[..2] {
        assert!(minionsctl(socket, &["kill", id]).status.success());
    }
    for id in &ids[2..] {
        assert!(minionsctl(socket, &["kill", "--remove", id]).status.success());
    }
    let none_runs =
        || Ok(machine.printed("pgrep -f 'sleep 123[4]' || true").is_empty().then_some(()));
    wait_until("all have ended", SOON, none_runs).unwrap_or_else(|error| panic!("{error}"));
    let left: Vec<_> = machine.execs().into_keys().collect();
    assert!(left.iter().all(|id| ids[..2].contains(&id.as_str())), "{left:?}");
}

#[test]
fn programs_of_a_killed_agent_are_lost_and_can_be_ended_under_init() {
    five_lost(&Machine::agent_first("lost-init"), "kill -9 $PPID");
}

#[test]
fn programs_of_a_killed_agent_are_lost_and_can_be_ended_under_systemd() {
    let disk = Disk::installed();
    five_lost(&Machine::debian(&disk, "lost-systemd"), "kill -9 $PPID");
}
