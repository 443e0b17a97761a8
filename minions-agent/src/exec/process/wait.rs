//! Waiting for a child process, with its resource usage.
#![expect(unsafe_code, reason = "wait4(2) has no safe wrapper that returns the resource usage")]

use rustix::io::{Errno, retry_on_intr};
use rustix::process::Pid;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Resources that a process and its reaped children used.
#[derive(Debug, Clone, Copy)]
pub(in crate::exec) struct ProcessUsage {
    pub(in crate::exec) user: Duration,
    pub(in crate::exec) system: Duration,
    pub(in crate::exec) max_rss_bytes: u64,
}

/// Waits for a child of this process to end, and reaps it. Blocks.
pub(super) fn wait(pid: Pid) -> Result<(ExitStatus, ProcessUsage), Errno> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    retry_on_intr(|| {
        // SAFETY: the kernel writes to both, which live longer than the call.
        let waited = unsafe {
            libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, usage.as_mut_ptr())
        };
        let last = || Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
        if waited < 0 { Err(last()) } else { Ok(()) }
    })?;
    // SAFETY: all fields are numbers, for which every bit pattern is valid.
    let usage = unsafe { usage.assume_init() };
    let used = ProcessUsage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        // In units of 1024 bytes (getrusage(2)).
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    };
    Ok((ExitStatus::from_raw(status), used))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
}

/// Converts a part of a `timeval`, whose width depends on the architecture. The kernel reports no negative ones.
fn part(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}
