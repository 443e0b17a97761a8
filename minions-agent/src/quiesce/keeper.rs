//! The keeper: a small process that thaws the file systems if the agent cannot.
//!
//! ```text
//!  agent ── deadline, number of mount points (u64 each), mount points (descriptors) ──▶ keeper
//!        ◀── 'R': ready ──────────────────────────────────────────────────────────────
//!        ── n 'B': freeze of n begins; n 'F': n is frozen; n 'T': n is not frozen ────▶
//!        ── end of the connection: the agent has ended ───────────────────────────────▶ thaws
//!                                                                        lease over ──▶ thaws
//! ```
//!
//! The keeper starts before the first freeze, so nothing has to be started or read while the root file system is
//! frozen: all of its memory is locked. It leaves the agent's session and control group, so what ends the agent with
//! all of its processes spares the keeper. If the keeper itself ends first, the agent notices that by the end of the
//! connection, and thaws. The agent ends the keeper after each thaw.
//!
//! The thaw of a file system whose freeze is in progress fails, or waits in the kernel. So the others are thawed first,
//! and after the end of the lease, this one is tried again until the agent reports its state.

use super::frozen_set::{FreezeState, MAX_FROZEN, thaw};
use crate::cgroup::{self, CgroupHierarchy};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut, read, retry_on_intr, write};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
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

/// Interval between attempts to thaw a file system whose freeze was in progress at the end of the lease.
const RETRY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Bytes of the first message: two numbers in the byte order of the machine.
const START_LEN: usize = 16;

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
    pub(super) fn mark(&self, number: usize, state: FreezeState) {
        let Ok(number) = u8::try_from(number) else { return };
        let _ = retry_on_intr(|| write(&self.connection, &[number, on_wire(state)]));
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
    let count = (mounts.len() as u64).to_ne_bytes();
    let data = [IoSlice::new(&deadline), IoSlice::new(&count)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FROZEN))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !mounts.is_empty() && !control.push(SendAncillaryMessage::ScmRights(mounts)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(connection, &data, &mut control, SendFlags::NOSIGNAL)?;
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
    let mut kept = KeptMounts { states: [FreezeState::Thawed; MAX_FROZEN], mounts, over: false };
    retry_on_intr(|| write(connection, &[READY]))?;
    loop {
        let mut watched = [
            PollFd::from_borrowed_fd(connection, PollFlags::IN),
            PollFd::new(&timer, PollFlags::IN),
        ];
        let patience = kept.is_retried().then_some(&RETRY);
        let is_idle = retry_on_intr(|| poll(&mut watched, patience))? == 0;
        let [connection_is_ready, timer_is_ready] =
            [0, 1].map(|index: usize| !watched[index].revents().is_empty());
        if timer_is_ready {
            let mut expirations = [0; 8];
            let _ = read(&timer, &mut expirations);
            kept.over = true;
        }
        if timer_is_ready || is_idle {
            kept.thaw(|mount| thaw(mount.as_fd()).is_ok());
        }
        if connection_is_ready {
            // An even number: the agent writes both bytes of a message at once.
            let mut messages = [0; 64];
            match retry_on_intr(|| read(connection, &mut messages)) {
                Ok(0) | Err(_) => {
                    kept.thaw(|mount| thaw(mount.as_fd()).is_ok());
                    return Ok(());
                }
                Ok(len) => {
                    kept.note(&messages[..len]);
                    if kept.over {
                        kept.thaw(|mount| thaw(mount.as_fd()).is_ok());
                    }
                }
            }
        }
    }
}

/// Mount points with the state of their file systems.
struct KeptMounts<M> {
    mounts: Vec<M>,
    states: [FreezeState; MAX_FROZEN],
    /// True after the end of the lease: whatever is frozen then must be thawed.
    over: bool,
}

impl<M> KeptMounts<M> {
    /// Takes messages of the agent.
    fn note(&mut self, messages: &[u8]) {
        for message in messages.chunks_exact(2) {
            let state = self.states.get_mut(usize::from(message[0]));
            if let (Some(state), Some(reported)) = (state, from_wire(message[1])) {
                *state = reported;
            }
        }
    }

    /// Thaws what is frozen, the last one first, and then what is being frozen: its thaw may wait for its freeze.
    ///
    /// What was being frozen stays so until the agent reports its state: the freeze may end after this attempt.
    fn thaw(&mut self, mut thaw: impl FnMut(&M) -> bool) {
        for state in [FreezeState::Frozen, FreezeState::Freezing] {
            for (mount, kept) in self.mounts.iter().zip(&mut self.states).rev() {
                if *kept == state && thaw(mount) {
                    *kept = FreezeState::Thawed;
                }
            }
        }
    }

    /// Reports whether a freeze was in progress at the end of the lease.
    fn is_retried(&self) -> bool {
        self.over && self.states.contains(&FreezeState::Freezing)
    }
}

fn on_wire(state: FreezeState) -> u8 {
    match state {
        FreezeState::Freezing => b'B',
        FreezeState::Frozen => b'F',
        FreezeState::Thawed => b'T',
    }
}

fn from_wire(byte: u8) -> Option<FreezeState> {
    let all = [FreezeState::Freezing, FreezeState::Frozen, FreezeState::Thawed];
    all.into_iter().find(|state| on_wire(*state) == byte)
}

fn enter_group() -> io::Result<()> {
    let Some(hierarchy) = CgroupHierarchy::find() else { return Ok(()) };
    let group = hierarchy.root().join(GROUP);
    cgroup::make(&group)?;
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

fn receive_mounts(connection: BorrowedFd<'_>) -> Result<(Vec<OwnedFd>, Duration), Errno> {
    let mut start = [0; START_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FROZEN))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let mut data = [IoSliceMut::new(&mut start)];
    let received = retry_on_intr(|| recvmsg(connection, &mut data, &mut control, flags))?;
    let mut mounts = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            mounts.extend(descriptors);
        }
    }
    let [deadline, count] = [&start[..8], &start[8..]]
        .map(|bytes| bytes.try_into().map_or(u64::MAX, u64::from_ne_bytes));
    // With a limit on its open files, this process gets fewer descriptors than were sent. It must not keep only a part.
    if received.bytes != START_LEN
        || received.flags.contains(ReturnFlags::CTRUNC)
        || mounts.len() as u64 != count
    {
        return Err(Errno::PIPE);
    }
    Ok((mounts, Duration::from_nanos(deadline)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn kept(mounts: Vec<u8>) -> KeptMounts<u8> {
        KeptMounts { mounts, states: [FreezeState::Thawed; MAX_FROZEN], over: false }
    }

    #[test]
    fn a_freeze_in_progress_is_thawed_after_those_that_are_complete_and_again_until_its_end_is_reported()
     {
        let mut kept = kept(vec![10, 11, 12, 13]);
        kept.note(b"\0B\0F\x01B\x01T\x02B\x02F\x03B");
        kept.over = true;
        let mut order = Vec::new();
        kept.thaw(|mount| {
            order.push(*mount);
            *mount != 13
        });
        assert_eq!(order, [12, 10, 13]);
        assert!(kept.is_retried());
        // The freeze ended after the lease.
        kept.note(b"\x03F");
        order.clear();
        kept.thaw(|mount| {
            order.push(*mount);
            true
        });
        assert_eq!(order, [13]);
        assert!(!kept.is_retried());
        kept.note(b"\x78F\xffF\x01?");
        kept.thaw(|mount| panic!("{mount}"));
    }

    #[test]
    fn a_keeper_that_does_not_get_all_mount_points_refuses_to_start() {
        let (agent, keeper) = UnixStream::pair().unwrap();
        let files: Vec<_> = (0..3).map(|_| File::open("/").unwrap()).collect();
        let mounts: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let deadline = Duration::from_secs(7);
        send_mounts(&agent, &mounts, deadline).unwrap();
        let (received, until) = receive_mounts(keeper.as_fd()).unwrap();
        assert_eq!((received.len(), until), (3, deadline));
        drop(received);
        // As the first message of an agent that passes two of three.
        let [deadline, count] = [7_u64, 3].map(u64::to_ne_bytes);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&mounts[..2])));
        let data = [IoSlice::new(&deadline), IoSlice::new(&count)];
        sendmsg(&agent, &data, &mut control, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(receive_mounts(keeper.as_fd()).unwrap_err(), Errno::PIPE);
    }
}
