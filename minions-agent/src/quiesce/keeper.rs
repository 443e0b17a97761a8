//! The keeper: a small process that thaws the file systems if the agent cannot.
//!
//! ```text
//!  agent ── deadline, mount points (descriptors) ──▶ keeper
//!        ◀── 'R': ready ───────────────────────────
//!        ── n: freeze of n begins; n | 0x80: n is not frozen ─▶
//!        ── end of the connection: the agent has ended ──▶ thaws
//!                                         lease over ────▶ thaws
//! ```
//!
//! The keeper starts before the first freeze, so nothing has to be started or read while the root file system is
//! frozen: all of its memory is locked. It leaves the agent's session and control group, so what ends the agent with
//! all of its processes spares the keeper. If the keeper itself ends first, the agent notices that by the end of the
//! connection, and thaws. The agent ends the keeper after each thaw.

use super::frozen_set::{MAX_FROZEN, thaw};
use crate::cgroup::{self, CgroupHierarchy};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut, read, retry_on_intr, write};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::setsid;
use rustix::stdio::stdin;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// Argument that makes the agent's program a keeper.
const ARGUMENT: &str = "freeze-keeper";

/// Control group of the keeper in a guest, directly below the root of the tree.
const GROUP: &str = "minions-freeze";

/// Answer of a keeper that is ready.
const READY: u8 = b'R';

/// Bit of a message: the file system is not frozen.
const NOT_FROZEN: u8 = 0x80;

/// Time for a keeper to become ready.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running keeper, as the agent sees it. Dropping it ends the keeper; the caller has thawed before.
#[derive(Debug)]
pub(super) struct FreezeKeeper {
    child: Child,
    connection: UnixStream,
}

impl FreezeKeeper {
    /// Starts a keeper for these mount points, which thaws at `deadline` (boot clock). Blocks until it is ready.
    pub(super) fn start(
        program: &Path,
        mounts: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> io::Result<Self> {
        let (connection, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let keeper = Self { child, connection };
        send_mounts(&keeper.connection, mounts, deadline)?;
        keeper.connection.set_read_timeout(Some(START_DEADLINE))?;
        let mut answer = [0];
        match retry_on_intr(|| read(&keeper.connection, &mut answer)) {
            Ok(1) if answer == [READY] => {}
            Ok(_) => return Err(io::Error::other("the keeper ended instead of becoming ready")),
            Err(error) => return Err(error.into()),
        }
        keeper.connection.set_nonblocking(true)?;
        Ok(keeper)
    }

    /// Reports the state of a file system to the keeper. If the keeper has ended, the agent notices it elsewhere.
    pub(super) fn mark(&self, number: usize, frozen: bool) {
        let Ok(number) = u8::try_from(number) else { return };
        let message = if frozen { number } else { number | NOT_FROZEN };
        let _ = retry_on_intr(|| write(&self.connection, &[message]));
    }

    /// Returns a descriptor that becomes readable when the keeper ends.
    pub(super) fn ended(&self) -> io::Result<OwnedFd> {
        self.connection.as_fd().try_clone_to_owned()
    }
}

impl Drop for FreezeKeeper {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(hierarchy) = CgroupHierarchy::find() {
            let _ = fs::remove_dir(hierarchy.root().join(GROUP));
        }
    }
}

fn send_mounts(
    connection: &UnixStream,
    mounts: &[BorrowedFd<'_>],
    deadline: Duration,
) -> io::Result<()> {
    let deadline = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX).to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FROZEN))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !mounts.is_empty() && !control.push(SendAncillaryMessage::ScmRights(mounts)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(connection, &[IoSlice::new(&deadline)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reports whether the command line, without the program's name, asks for a keeper.
#[must_use]
pub fn is_asked(line: impl IntoIterator<Item = OsString>) -> bool {
    line.into_iter().next().is_some_and(|first| first == ARGUMENT)
}

/// Runs the keeper on standard input.
#[must_use]
pub fn run() -> ExitCode {
    match keep(stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        // No message is needed: the agent sees the end of the connection.
        Err(_) => ExitCode::FAILURE,
    }
}

fn keep(connection: BorrowedFd<'_>) -> Result<(), Errno> {
    // Each of these fails without the privilege, or in a guest without the feature; the keeper works nevertheless.
    let _ = setsid();
    let _ = enter_group();
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let (mounts, deadline) = receive_mounts(connection)?;
    let timer = timer_at(deadline)?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;
    let mut frozen = [false; MAX_FROZEN];
    retry_on_intr(|| write(connection, &[READY]))?;
    loop {
        let mut watched = [
            PollFd::from_borrowed_fd(connection, PollFlags::IN),
            PollFd::new(&timer, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut watched, None))?;
        let [connection_is_ready, timer_is_ready] =
            [0, 1].map(|index: usize| !watched[index].revents().is_empty());
        if timer_is_ready {
            let mut expirations = [0; 8];
            let _ = read(&timer, &mut expirations);
            thaw_all(&mounts, &frozen);
        }
        if connection_is_ready {
            let mut messages = [0; 64];
            match retry_on_intr(|| read(connection, &mut messages)) {
                Ok(0) | Err(_) => {
                    thaw_all(&mounts, &frozen);
                    return Ok(());
                }
                Ok(len) => {
                    for message in &messages[..len] {
                        let number = usize::from(message & !NOT_FROZEN);
                        if let Some(state) = frozen.get_mut(number) {
                            *state = message & NOT_FROZEN == 0;
                        }
                    }
                }
            }
        }
    }
}

/// Thaws the file systems whose freeze has begun, the last one first.
fn thaw_all(mounts: &[OwnedFd], frozen: &[bool]) {
    for (mount, _) in mounts.iter().zip(frozen).rev().filter(|(_, frozen)| **frozen) {
        thaw(mount.as_fd());
    }
}

fn enter_group() -> io::Result<()> {
    let Some(hierarchy) = CgroupHierarchy::find() else { return Ok(()) };
    let group = hierarchy.root().join(GROUP);
    cgroup::make(&group)?;
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

fn receive_mounts(connection: BorrowedFd<'_>) -> Result<(Vec<OwnedFd>, Duration), Errno> {
    let mut deadline = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FROZEN))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let mut data = [IoSliceMut::new(&mut deadline)];
    let received = retry_on_intr(|| recvmsg(connection, &mut data, &mut control, flags))?;
    if received.bytes != 8 {
        return Err(Errno::PIPE);
    }
    let mut mounts = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            mounts.extend(descriptors);
        }
    }
    Ok((mounts, Duration::from_nanos(u64::from_ne_bytes(deadline))))
}

/// Returns a descriptor that becomes readable when the boot clock reaches `deadline`. This clock also counts the time
/// of a suspend.
pub(super) fn timer_at(deadline: Duration) -> Result<OwnedFd, Errno> {
    let timer =
        timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let it_value = Timespec {
        tv_sec: i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX),
        // A time of zero would disarm the timer.
        tv_nsec: i64::from(deadline.subsec_nanos().max(1)),
    };
    let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
    let time = Itimerspec { it_interval, it_value };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &time)?;
    Ok(timer)
}
