//! A socket created and kept open by the service manager (sd_listen_fds(3)).
//!
//! The manager holds the port also while no agent runs: no unprivileged process can take it, and a host that
//! connects while the agent restarts waits instead of being refused.
#![expect(unsafe_code, reason = "a descriptor that is inherited by number has no safe constructor")]

use super::{ListenError, hybrid, vsock};
use minions_proto::AgentPort;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, sockopt};
use std::env;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// First passed descriptor, `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// Passed listener, by kind of socket.
#[derive(Debug)]
pub(super) enum PassedListener {
    Vsock(vsock::HostListener),
    Hybrid(hybrid::HybridListener),
}

/// Reports whether the service manager has passed a socket to this process.
pub(super) fn is_offered() -> bool {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    number("LISTEN_PID") == Some(std::process::id()) && number("LISTEN_FDS").is_some_and(|n| n > 0)
}

/// Reports whether the first passed socket is a VSOCK socket. Must be called before [`take`].
pub(super) fn is_vsock() -> bool {
    // SAFETY: the descriptor is only queried; if it is not open, the query fails.
    let fd = unsafe { BorrowedFd::borrow_raw(FIRST) };
    is_offered() && sockopt::socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::VSOCK)
}

/// Takes the first passed socket. A second call fails. `port` is the requested port.
pub(super) fn take(port: Option<AgentPort>) -> Result<PassedListener, ListenError> {
    let wrong = |reason: &str| ListenError::Activation(io::Error::other(reason.to_owned()));
    if !is_offered() {
        return Err(wrong("LISTEN_PID and LISTEN_FDS pass no socket to this process"));
    }
    let fd = claim().ok_or_else(|| wrong("descriptor 3 is not a socket, or is taken already"))?;
    // The agent's programs must not inherit it.
    fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(|errno| ListenError::Activation(errno.into()))?;
    if !sockopt::socket_acceptconn(&fd).unwrap_or(false) {
        return Err(wrong("descriptor 3 does not listen"));
    }
    let family = sockopt::socket_domain(&fd);
    match family.map_err(|errno| ListenError::Activation(errno.into()))? {
        AddressFamily::VSOCK => Ok(PassedListener::Vsock(vsock::HostListener::of(fd, port)?)),
        AddressFamily::UNIX => {
            let listener = hybrid::HybridListener::of(fd, port.unwrap_or_default());
            Ok(PassedListener::Hybrid(listener.map_err(ListenError::Activation)?))
        }
        _ => Err(wrong("descriptor 3 is neither a vsock nor a Unix socket")),
    }
}

fn claim() -> Option<OwnedFd> {
    static CLAIMED: AtomicBool = AtomicBool::new(false);
    let target = fs::read_link(format!("/proc/self/fd/{FIRST}")).ok()?;
    let is_socket = target.to_string_lossy().starts_with("socket:");
    if !is_socket || CLAIMED.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: the descriptor is open, as checked above, and was passed to this process for its own use.
    // Only this function takes it, and only once, so nothing else in this process owns it.
    Some(unsafe { OwnedFd::from_raw_fd(FIRST) })
}
