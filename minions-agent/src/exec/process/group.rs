//! Check for running processes in a process group.

use rustix::process::{Pid, test_kill_process_group};
use std::fs;

/// Reports whether a process of the group runs. Until the last one ends, the group's number is not reused, so
/// a signal to it cannot hit another group.
///
/// For the kernel, zombies are part of the group too, and an orphan is a zombie until the guest's init reaps it.
/// So if the kernel finds processes, `/proc` tells whether one of them runs.
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

/// Parses `1234 (name) S 1 1200 …` (state, parent, group). The name may contain any character.
fn runs_in(stat: &[u8], group: Pid) -> bool {
    let stat = String::from_utf8_lossy(stat);
    let Some((_, after_name)) = stat.rsplit_once(") ") else { return false };
    let mut fields = after_name.split(' ');
    let state = fields.next();
    let group_of_process = fields.nth(1).and_then(|number| number.parse().ok());
    !matches!(state, None | Some("Z" | "X"))
        && group_of_process == Some(group.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_does_not_run() {
        let group = Pid::from_raw(1200).unwrap();
        assert!(runs_in(b"1234 (a) Z (b) S 1 1200 1200 0", group));
        assert!(!runs_in(b"1234 (sleep) Z 1 1200 1200 0", group));
        assert!(!runs_in(b"1234 (sleep) S 1200 1201 1200 0", group));
        assert!(!runs_in(b"junk", group));
    }
}
