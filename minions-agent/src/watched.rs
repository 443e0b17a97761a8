//! Registration of a descriptor with the runtime, which watches its readiness.
//!
//! minionsd, which has no unsafe code at all, uses the deprecated safe constructor for its only such descriptor.
#![expect(unsafe_code, reason = "`AsyncFd::register` requires a guarantee about the descriptor")]

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Registers `fd` until the returned value is dropped.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open and stays the same until it is dropped, and only the value
    // that is returned here can drop it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
