//! A control group for each program, where the guest has cgroup v2 and lets us: a program can leave
//! its session and its process group, but only root's can leave its cgroup, so that a kill leaves
//! nothing.

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where everybody mounts it; the second one where version 1 is still there as well.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Below it for an agent that is in no group of its own.
const OURS: &str = "minions";

/// Makes control groups below our own.
#[derive(Debug, Clone)]
pub(in crate::exec) struct Cgroups(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    parent: PathBuf,
    made: AtomicU64,
    /// Those that something still ran in when we were done with them.
    leftover: Mutex<Vec<PathBuf>>,
}

impl Cgroups {
    /// Finds out whether control groups can be made.
    pub(in crate::exec) fn find() -> Self {
        let cgroups = Self(parent().map(|parent| {
            Arc::new(Shared { parent, made: AtomicU64::new(0), leftover: Mutex::default() })
        }));
        // Only trying tells: a read-only mount looks the same.
        match cgroups.make() {
            Some(cgroup) if cgroup.dir.join("cgroup.kill").exists() => {
                drop(cgroup);
                cgroups
            }
            _ => Self(None),
        }
    }

    /// A new one, if that works.
    pub(in crate::exec) fn make(&self) -> Option<Cgroup> {
        let shared = self.0.as_ref()?;
        shared.sweep();
        // Another agent, or one before us, may have left some behind.
        for _ in 0..16 {
            let number = shared.made.fetch_add(1, Ordering::Relaxed);
            let dir = shared.parent.join(format!("exec-{}-{number}", std::process::id()));
            match fs::create_dir(&dir) {
                Ok(()) => return Some(Cgroup { dir, shared: Arc::clone(shared) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// `0::/system.slice/minions-agent.service` → the directory to make ours in.
fn parent() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = MOUNTS.iter().map(Path::new).find(|dir| dir.join("cgroup.controllers").exists())?;
    if !path.is_empty() {
        return Some(mount.join(path));
    }
    let ours = mount.join(OURS);
    match fs::create_dir(&ours) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => None,
        _ => Some(ours),
    }
}

/// Kills what an agent in no group of its own has left behind.
pub(in crate::exec) fn kill_leftover() {
    for mount in MOUNTS {
        // There may be none, of either.
        let _ = fs::write(Path::new(mount).join(OURS).join("cgroup.kill"), "1");
    }
}

impl Shared {
    fn sweep(&self) {
        let mut leftover = self.leftover.lock().unwrap_or_else(PoisonError::into_inner);
        leftover.retain(|dir| is_busy(dir));
    }
}

/// Removes it, unless something runs in it.
fn is_busy(dir: &Path) -> bool {
    fs::remove_dir(dir).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

/// One program's. Removed when dropped, or once what is left in it has ended.
#[derive(Debug)]
pub(in crate::exec) struct Cgroup {
    dir: PathBuf,
    shared: Arc<Shared>,
}

impl Cgroup {
    /// What a process can be started in.
    pub(super) fn directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(open(&self.dir, flags, Mode::empty())?)
    }

    /// Sends a signal to each process in it, as they are at this moment, and says which those were.
    pub(super) fn signal(&self, signal: Signal) -> Vec<Pid> {
        let processes = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        let processes = processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
        let processes: Vec<Pid> = processes.collect();
        for pid in &processes {
            // It may have ended.
            let _ = kill_process(*pid, signal);
        }
        processes
    }

    /// Kills everything in it at once; nothing can fork its way out (kernel 5.14).
    pub(in crate::exec) fn kill(&self) {
        if let Err(error) = fs::write(self.dir.join("cgroup.kill"), "1") {
            tracing::warn!(%error, "a control group can't be killed");
        }
    }

    /// Whether anything runs in it, zombies not counted.
    pub(super) fn is_alive(&self) -> bool {
        fs::read_to_string(self.dir.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if is_busy(&self.dir) {
            let mut leftover = self.shared.leftover.lock().unwrap_or_else(PoisonError::into_inner);
            leftover.push(std::mem::take(&mut self.dir));
        }
    }
}
