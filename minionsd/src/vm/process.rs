//! The process that listens on a VM's socket: its VMM, or the VMM's vsock backend.
//!
//! The kernel says which one it is to whoever connects (`SO_PEERCRED`: who called `listen(2)`). A pid
//! is used again when its process is gone, so it counts together with the process's start; and a pidfd
//! both keeps us from mistaking the next one for it and tells at once when it ends.

use crate::descriptors::Descriptors;
use minions_api::vm::Vmm;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::{fmt, fs};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes in a page of `/proc`'s figures.
fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

/// Milliseconds in one of `/proc`'s ticks.
fn tick_ms() -> u64 {
    1000 / rustix::param::clock_ticks_per_second().clamp(1, 1000)
}

/// Which process it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks since the host booted; `None` where `/proc` doesn't show it to us.
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

/// Name of a VMM without a power switch: it keeps a guest that has halted.
const KEEPS_HALTED_GUESTS: &str = "firecracker";

impl ProcessId {
    /// Reports whether the process still runs, as far as `/proc` shows.
    pub(crate) fn is_alive(&self) -> bool {
        match self.started {
            Some(started) => {
                stat(self.pid).is_some_and(|stat| stat.started == started && !stat.is_dead)
            }
            // Hidden from this daemon; a pidfd reports the end.
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

    /// As it is shown; with its figures if it is still the same process.
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

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    ended: Option<(AsyncFd<OwnedFd>, OwnedSemaphorePermit)>,
}

impl Process {
    /// The one that has this pid now; `None` if there is none. Without a descriptor to spare its end
    /// is not watched for: its connections will show it.
    pub(crate) fn find(pid: u32, descriptors: &Descriptors) -> Option<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let permit = descriptors.take_spare();
        // Before its start is read: while we have this, nobody else gets the number.
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

    /// Waits for its end; for ever if that can't be seen.
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&self) {
        match &self.ended {
            // A pidfd is readable once its process is dead.
            Some((fd, _)) if fd.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }
}

/// A pidfd, with the runtime.
#[expect(deprecated, reason = "the sound one is unsafe, and an OwnedFd keeps what that asks for")]
fn register(fd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // It must stay open and keep its number until it is taken back: owned, and never exchanged, it does.
    AsyncFd::with_interest(fd, Interest::READABLE).ok()
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    name: String,
    /// State of a process that has ended, and whose parent has not asked for its exit status.
    is_dead: bool,
    pub(crate) started: u64,
    pub(crate) cpu_ms: u64,
    pub(crate) rss_bytes: u64,
}

/// `None` if there is no such process, or not for us.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5). The name, in parentheses, may have parentheses and spaces in it.
fn parse(text: &str) -> Option<Stat> {
    let (head, rest) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first of them is field 3 of the whole.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        is_dead: matches!(fields.first(), Some(&("Z" | "X"))),
        cpu_ms: field(14)?.saturating_add(field(15)?).saturating_mul(tick_ms()),
        started: field(22)?,
        rss_bytes: field(24)?.saturating_mul(page_size()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;
    use tokio::time::timeout;

    #[test]
    fn a_name_may_have_anything_in_it() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 50 25 0 0 20 0 1 0 777 1000 3 18446744073709551615 1";
        let stat = parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.started), ("a) b (c", 777));
        assert_eq!((stat.cpu_ms, stat.rss_bytes), (75 * tick_ms(), 3 * page_size()));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn a_process_that_was_not_waited_for_is_not_alive() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let started = stat(pid).unwrap().started;
        let id = ProcessId { pid, started: Some(started), name: None };
        while id.is_alive() {
            assert!(std::time::Instant::now() < deadline, "it never ends");
        }
        assert!(stat(pid).is_some_and(|stat| stat.is_dead), "still there, as a zombie");
        child.wait().unwrap();
        let own = |started| ProcessId { pid: std::process::id(), started, name: None };
        assert!(!own(Some(1)).is_alive(), "another process has the number");
        assert!(own(None).is_alive());
    }

    #[test]
    fn figures_are_of_the_same_process_only() {
        let own = stat(std::process::id()).unwrap();
        let id = |started| ProcessId { pid: std::process::id(), started, name: None };
        assert!(id(Some(own.started)).show(true).rss_bytes.is_some_and(|bytes| bytes > 0));
        assert_eq!(id(Some(own.started + 1)).show(true).rss_bytes, None);
        assert_eq!(id(Some(own.started)).show(false).cpu_ms, None);
    }

    #[tokio::test]
    async fn an_end_is_seen_at_once_and_a_pid_that_is_nobodys_is_nobody() {
        let descriptors = Descriptors::of_process();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::find(child.id(), &descriptors).unwrap();
        assert_eq!(process.id.pid, child.id());
        assert!(process.id.started.is_some());
        assert!(timeout(Duration::from_millis(20), process.ended()).await.is_err());
        child.kill().unwrap();
        timeout(Duration::from_secs(10), process.ended()).await.unwrap();
        child.wait().unwrap();
        assert!(Process::find(child.id(), &descriptors).is_none());
    }
}
