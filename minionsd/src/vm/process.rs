//! The process that listens on a VM's socket: its VMM, or the VMM's vsock backend.
//!
//! The kernel tells each client that connects the pid of the process that called `listen(2)` (`SO_PEERCRED`). Pids
//! are reused, so a process is identified by its pid and its start time. A pidfd keeps minionsd from confusing the
//! process with a later one of the same pid, and reports its end at once.

use crate::descriptors::Descriptors;
use minions_api::vm::Vmm;
use procfs::FromRead;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fmt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OwnedSemaphorePermit;

/// Returns the size of a memory page, the unit of `rss` in `/proc`, in bytes.
fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

/// Returns the length of a clock tick, the unit of times in `/proc`, in milliseconds.
fn tick_ms() -> u64 {
    1000 / rustix::param::clock_ticks_per_second().clamp(1, 1000)
}

/// Identity of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Start time in clock ticks since the host booted; `None` if `/proc` hides the process from minionsd.
    pub(crate) started: Option<u64>,
    pub(crate) name: Option<String>,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}, pid {}", self.pid),
            None => write!(f, "pid {}", self.pid),
        }
    }
}

/// Name of a VMM without a power button: it does not end when its guest halts.
const KEEPS_HALTED_GUESTS: &str = "firecracker";

impl ProcessId {
    /// Reports whether the process still runs, as far as `/proc` shows.
    pub(crate) fn is_alive(&self) -> bool {
        match self.started {
            Some(started) => {
                stat(self.pid).is_some_and(|stat| stat.started == started && !stat.is_dead)
            }
            // `/proc` hides the process; only a pidfd reports its end.
            None => true,
        }
    }

    /// Returns advice on ending a VMM that does not end with its guest; `None` for all others.
    pub(crate) fn how_to_end(&self) -> Option<String> {
        let keeps = self.name.as_deref() == Some(KEEPS_HALTED_GUESTS);
        keeps.then(|| {
            format!(
                "{KEEPS_HALTED_GUESTS} keeps a halted guest and its memory: end the VMM's process: kill {}",
                self.pid
            )
        })
    }

    /// Reports whether the VMM ends, and must be started again, when its guest reboots.
    pub(crate) fn ends_at_reboot(&self) -> bool {
        self.name.as_deref() == Some(KEEPS_HALTED_GUESTS)
    }

    /// Returns the process as the API shows it. Memory and CPU time are included if `with_figures` is true and the
    /// pid still belongs to the same process.
    pub(crate) fn show(&self, with_figures: bool) -> Vmm {
        let stat = with_figures.then(|| stat(self.pid)).flatten();
        let stat = stat.filter(|stat| Some(stat.started) == self.started);
        Vmm {
            pid: self.pid,
            name: self.name.clone(),
            rss_bytes: stat.as_ref().map(|stat| stat.rss_bytes),
            cpu_ms: stat.as_ref().map(|stat| stat.cpu_ms),
        }
    }
}

/// Process whose end is watched.
#[derive(Debug)]
pub(crate) struct WatchedProcess {
    pub(crate) id: ProcessId,
    ended: Option<(AsyncFd<OwnedFd>, OwnedSemaphorePermit)>,
}

impl WatchedProcess {
    /// Returns the process that has this pid now; `None` if no process has it. Without a spare descriptor, its end
    /// is not watched; the end of its connections shows it.
    pub(crate) fn find(pid: u32, descriptors: &Descriptors) -> Option<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let permit = descriptors.take_spare();
        // Opened before the start time is read, so that both describe the same process.
        let watched = match permit {
            None => None,
            Some(permit) => match pidfd_open(raw, PidfdFlags::NONBLOCK) {
                Ok(fd) => register(fd).zip(Some(permit)),
                Err(rustix::io::Errno::SRCH) => return None,
                Err(_) => None,
            },
        };
        let stat = stat(pid);
        let (started, name) =
            stat.map_or((None, None), |stat| (Some(stat.started), Some(stat.name)));
        Some(Self { id: ProcessId { pid, started, name }, ended: watched })
    }

    /// Waits for the end of the process; forever if it is not watched.
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&self) {
        match &self.ended {
            // A pidfd becomes readable when its process ends.
            Some((fd, _)) if fd.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }
}

/// Registers a pidfd with the runtime.
#[expect(deprecated, reason = "the sound one is unsafe, and an OwnedFd keeps what that asks for")]
fn register(fd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // The descriptor must stay open under the same number until it is deregistered: it is owned and never replaced.
    AsyncFd::with_interest(fd, Interest::READABLE).ok()
}

/// Fields of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    name: String,
    /// True for a process that has ended and whose parent has not collected its exit status.
    is_dead: bool,
    pub(crate) started: u64,
    pub(crate) cpu_ms: u64,
    pub(crate) rss_bytes: u64,
}

/// Reads `/proc/<pid>/stat`; `None` if there is no such process or minionsd may not read it.
pub(crate) fn stat(pid: u32) -> Option<ProcessStat> {
    procfs::process::Stat::from_file(format!("/proc/{pid}/stat")).ok().map(ProcessStat::from)
}

impl From<procfs::process::Stat> for ProcessStat {
    fn from(stat: procfs::process::Stat) -> Self {
        Self {
            is_dead: matches!(stat.state, 'Z' | 'X'),
            cpu_ms: stat.utime.saturating_add(stat.stime).saturating_mul(tick_ms()),
            started: stat.starttime,
            rss_bytes: stat.rss.saturating_mul(page_size()),
            name: stat.comm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Duration;
    use tokio::time::timeout;

    #[test]
    fn figures_are_in_milliseconds_and_bytes_and_a_name_may_contain_parentheses() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 50 25 0 0 20 0 1 0 777 1000 3 18446744073709551615 1 1 0 \
                    0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0";
        let read =
            |line: &str| procfs::process::Stat::from_read(line.as_bytes()).map(ProcessStat::from);
        let stat = read(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.started), ("a) b (c", 777));
        assert_eq!((stat.cpu_ms, stat.rss_bytes), (75 * tick_ms(), 3 * page_size()));
        assert!(read("nonsense").is_err());
    }

    #[tokio::test]
    async fn a_name_that_is_not_utf8_hides_no_figure() {
        let script = r"printf '\377' > /proc/$$/comm; read line";
        let mut child =
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        timeout(Duration::from_secs(10), async {
            while stat(child.id()).is_none_or(|stat| !stat.name.contains('\u{fffd}')) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let started = stat(pid).unwrap().started;
        let id = ProcessId { pid, started: Some(started), name: None };
        while id.is_alive() {
            assert!(std::time::Instant::now() < deadline, "the process does not end");
        }
        assert!(stat(pid).is_some_and(|stat| stat.is_dead), "not a zombie");
        child.wait().unwrap();
        let own = |started| ProcessId { pid: std::process::id(), started, name: None };
        assert!(!own(Some(1)).is_alive(), "a process with another start time counts as alive");
        assert!(own(None).is_alive());
    }

    #[test]
    fn figures_are_shown_only_for_the_same_process() {
        let own = stat(std::process::id()).unwrap();
        let id = |started| ProcessId { pid: std::process::id(), started, name: None };
        assert!(id(Some(own.started)).show(true).rss_bytes.is_some_and(|bytes| bytes > 0));
        assert_eq!(id(Some(own.started + 1)).show(true).rss_bytes, None);
        assert_eq!(id(Some(own.started)).show(false).cpu_ms, None);
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_seen_at_once_and_an_unused_pid_is_not_found() {
        let descriptors = Descriptors::of_process();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = WatchedProcess::find(child.id(), &descriptors).unwrap();
        assert_eq!(process.id.pid, child.id());
        assert!(process.id.started.is_some());
        assert!(timeout(Duration::from_millis(20), process.ended()).await.is_err());
        child.kill().unwrap();
        timeout(Duration::from_secs(10), process.ended()).await.unwrap();
        child.wait().unwrap();
        assert!(WatchedProcess::find(child.id(), &descriptors).is_none());
    }
}
