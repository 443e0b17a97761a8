//! `/proc/<pid>/stat` (proc_pid_stat(5)), as far as it is used.

use std::fs;

/// Process in the kernel's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessStat {
    state: u8,
    /// Number of the process group.
    pub(super) group: i32,
    /// Start time, in clock ticks since the boot.
    pub(super) started: u64,
}

impl ProcessStat {
    /// Reads the state of a process; `None` if no process has this pid.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses `1234 (name) S 1 1200 …`. The name may contain any character.
    pub(super) fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        let (_, after_name) = stat.rsplit_once(") ")?;
        let mut fields = after_name.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        // The first two are fields 3 and 5, the third is field 22.
        let group = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(16)?.parse().ok()?;
        Some(Self { state, group, started })
    }

    /// Reports whether the process runs: it has not ended, even if its parent has not waited for it.
    pub(super) fn runs(self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "1 1200 1200 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";

    #[test]
    fn the_name_of_a_process_may_look_like_fields() {
        let stat = ProcessStat::parse(format!("1234 (a) Z (b) S {REST}").as_bytes()).unwrap();
        assert_eq!((stat.group, stat.started, stat.runs()), (1200, 98_765, true));
    }

    #[test]
    fn a_process_that_has_ended_does_not_run() {
        for (state, runs) in [("R", true), ("D", true), ("T", true), ("Z", false), ("X", false)] {
            let stat = ProcessStat::parse(format!("1 (x) {state} {REST}").as_bytes()).unwrap();
            assert_eq!(stat.runs(), runs, "{state}");
        }
    }

    #[test]
    fn an_incomplete_file_is_refused() {
        for text in ["", "junk", "1 (x) S 1 1200", "1 (x) S 1 group 3"] {
            assert_eq!(ProcessStat::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn this_process_runs() {
        let own = ProcessStat::of(std::process::id()).unwrap();
        assert!(own.runs() && own.started > 0);
    }
}
