//! Supplementary groups of the process at the other end of a Unix socket.
#![expect(unsafe_code, reason = "no library has a safe form of SO_PEERGROUPS")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Enough for nearly every process; the kernel says so if it is not.
const LIKELY: usize = 32;

const GID_LEN: usize = size_of::<libc::gid_t>();

/// The groups, as the kernel recorded them at `connect` (unix(7), `SO_PEERGROUPS`, Linux 4.13): at most 65,536.
///
/// # Errors
///
/// The kernel's: it is older, or this is no connected Unix socket.
pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; LIKELY];
    loop {
        let room = groups.len();
        let mut len = libc::socklen_t::try_from(room * GID_LEN).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the kernel writes at most `len` bytes, which `groups` has, and the length to `len`.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = usize::try_from(len).unwrap_or(0) / GID_LEN;
        if done == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // With ERANGE the length is the one that is needed. A connection's groups never change.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= room {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_groups_of_the_other_end_are_those_of_its_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        let mut seen = of(ours.as_fd()).unwrap();
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
    }

    #[test]
    fn a_socket_of_another_kind_has_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(of(listener.as_fd()).is_err());
    }
}
