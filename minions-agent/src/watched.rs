//! A descriptor whose readiness the runtime watches.
#![expect(unsafe_code, reason = "tokio asks for a promise about descriptors of any type")]

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Watches `fd` for as long as what is returned lives.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open and stays the same until it is dropped, and only what is
    // returned here can drop it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
