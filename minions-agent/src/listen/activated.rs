//! A socket that the service manager made and keeps (sd_listen_fds(3)).
//!
//! It holds the port from before the agent's first start until after its last: no process of an
//! unprivileged user can take it in between, and a host that connects while the agent restarts waits
//! instead of being refused.
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

/// `SD_LISTEN_FDS_START`: the first one that is passed.
const FIRST: RawFd = 3;

/// A listener that was passed, by what is spoken on it.
#[derive(Debug)]
pub(super) enum Activated {
    Vsock(vsock::Listener),
    Hybrid(hybrid::Listener),
}

/// Whether the service manager says that it passed this very process a socket.
pub(super) fn is_offered() -> bool {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    number("LISTEN_PID") == Some(std::process::id()) && number("LISTEN_FDS").is_some_and(|n| n > 0)
}

/// Whether the first socket that was passed is one of VSOCK. To be asked before it is taken.
pub(super) fn is_vsock() -> bool {
    // SAFETY: the descriptor is only asked about; one that is not open answers with an error.
    let fd = unsafe { BorrowedFd::borrow_raw(FIRST) };
    is_offered() && sockopt::socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::VSOCK)
}

/// Takes the first socket that was passed; there is one only once. `port` is the one that was asked for.
pub(super) fn take(port: Option<AgentPort>) -> Result<Activated, ListenError> {
    let wrong = |reason: &str| ListenError::Activation(io::Error::other(reason.to_owned()));
    if !is_offered() {
        return Err(wrong("LISTEN_PID and LISTEN_FDS name none for this process"));
    }
    let fd = claim().ok_or_else(|| wrong("descriptor 3 is no socket, or was taken before"))?;
    // It was passed over one exec; it must not be over the next, into a program.
    fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(|errno| ListenError::Activation(errno.into()))?;
    if !sockopt::socket_acceptconn(&fd).unwrap_or(false) {
        return Err(wrong("descriptor 3 does not listen"));
    }
    let family = sockopt::socket_domain(&fd);
    match family.map_err(|errno| ListenError::Activation(errno.into()))? {
        AddressFamily::VSOCK => Ok(Activated::Vsock(vsock::Listener::of(fd, port)?)),
        AddressFamily::UNIX => {
            let listener = hybrid::Listener::of(fd, port.unwrap_or_default());
            Ok(Activated::Hybrid(listener.map_err(ListenError::Activation)?))
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
    // SAFETY: it is open, was just seen, and was passed to us for our own use: nothing else in this
    // process has it, since only this function takes it, and that only once.
    Some(unsafe { OwnedFd::from_raw_fd(FIRST) })
}
