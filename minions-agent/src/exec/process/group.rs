//! Check for running processes in a process group.

use super::proc_stat::ProcessStat;
use rustix::process::{Pid, test_kill_process_group};
use std::fs;

/// Reports whether a process of the group runs. Until the last one ends, the group's number is not reused, so
/// a signal to it cannot hit another group.
///
/// For the kernel, zombies are part of the group too, and an orphan that has ended is a zombie until the guest's init
/// reaps it. So if the kernel finds processes, `/proc` tells whether one of them runs.
pub(super) fn is_alive(group: Pid) -> bool {
    test_kill_process_group(group).is_ok() && has_running_process(group)
}

fn has_running_process(group: Pid) -> bool {
    // Without /proc there is only the kernel's answer.
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    entries.flatten().any(|entry| {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process && fs::read(entry.path().join("stat")).is_ok_and(|stat| runs_in(&stat, group))
    })
}

fn runs_in(stat: &[u8], group: Pid) -> bool {
    let number = group.as_raw_nonzero().get();
    ProcessStat::parse(stat).is_some_and(|stat| stat.runs() && stat.group == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_does_not_run() {
        let stat = |state, group| {
            let text =
                format!("1234 (sleep) {state} 1 {group} 1200 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 7 1");
            runs_in(text.as_bytes(), Pid::from_raw(1200).unwrap())
        };
        assert!(stat('S', 1200) && !stat('Z', 1200) && !stat('S', 1201));
        assert!(!runs_in(b"junk", Pid::from_raw(1200).unwrap()));
    }
}
