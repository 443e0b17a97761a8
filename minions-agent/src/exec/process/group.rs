//! Whether anybody is left in a process group.

use rustix::process::{Pid, test_kill_process_group};
use std::fs;

/// True while a process of the group runs. The group's number stays taken that long, so a signal
/// to it can't hit strangers.
///
/// The kernel alone says yes for a zombie too, and an orphan is one until the guest's init gets
/// round to it. So where it says yes, `/proc` is asked who that is.
pub(super) fn is_alive(group: Pid) -> bool {
    test_kill_process_group(group).is_ok() && anybody_runs(group)
}

fn anybody_runs(group: Pid) -> bool {
    // Without a /proc the kernel's answer is all there is.
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    entries.flatten().any(|entry| {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process && fs::read(entry.path().join("stat")).is_ok_and(|stat| runs_in(&stat, group))
    })
}

/// `1234 (name) S 1 1200 …`: state, parent, group. The name may contain anything.
fn runs_in(stat: &[u8], group: Pid) -> bool {
    let stat = String::from_utf8_lossy(stat);
    let Some((_, behind_name)) = stat.rsplit_once(") ") else { return false };
    let mut fields = behind_name.split(' ');
    let (state, of) = (fields.next(), fields.nth(1).and_then(|number| number.parse().ok()));
    !matches!(state, None | Some("Z" | "X")) && of == Some(group.as_raw_nonzero().get())
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
