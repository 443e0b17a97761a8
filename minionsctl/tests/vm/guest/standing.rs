//! Priorities that keep the agent alive while its programs use all resources, in each kind of guest.

use super::machine::{Disk, Machine};

/// Script that prints, of the agent: nice values and scheduling policies of all threads (3: batch), `oom_score_adj`,
/// control group, weight, protected memory; then of a program: nice value, policy (0: default), `oom_score_adj`, parent
/// of its group, weight.
const STANDING: &str = "read -r agent _ </proc/$PPID/stat
    for thread in /proc/$agent/task/*; do cut -d' ' -f19,41 $thread/stat; done | sort -u
    cat /proc/$agent/oom_score_adj
    group=$(grep ^0:: /proc/$agent/cgroup | cut -d: -f3)
    echo $group
    cat /sys/fs/cgroup$group/cpu.weight /sys/fs/cgroup$group/memory.min
    cut -d' ' -f19,41 /proc/self/stat
    cat /proc/self/oom_score_adj
    group=$(grep ^0:: /proc/self/cgroup | cut -d: -f3)
    echo ${group%/*}
    cat /sys/fs/cgroup$group/cpu.weight";

fn standing(agent_group: &str) -> String {
    let agent = format!("-20 3\n-900\n{agent_group}\n10000\n33554432");
    format!("{agent}\n0 0\n0\n/minions\n100")
}

#[test]
fn the_agent_under_init_has_priority_over_its_programs() {
    let machine = Machine::agent_first("standing");
    assert_eq!(machine.printed(STANDING), standing("/minions-agent"));
    assert_eq!(
        machine.printed("cat /proc/1/oom_score_adj; cut -d' ' -f19 /proc/1/stat"),
        "-900\n0"
    );
}

#[test]
fn the_agent_under_systemd_has_priority_over_its_programs() {
    let disk = Disk::installed();
    let machine = Machine::debian(&disk, "standing");
    assert_eq!(machine.printed(STANDING), standing("/minions-agent.service"));
    // None of this depends on the settings of the unit.
    let instance = machine.instance();
    machine.last_words(
        "mkdir -p /run/systemd/system/minions-agent.service.d
        printf '[Service]\\nOOMScoreAdjust=0\\nSlice=system.slice\\nMemoryMin=0\\nCPUWeight=1\\n' \
            >/run/systemd/system/minions-agent.service.d/test.conf
        systemctl daemon-reload
        systemctl --no-block restart minions-agent.service",
    );
    machine.until_another(&instance);
    assert_eq!(machine.printed(STANDING), standing("/system.slice/minions-agent.service"));
}
