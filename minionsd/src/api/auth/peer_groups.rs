//! Supplementary groups of the process at the other end of a Unix socket.
#![expect(unsafe_code, reason = "no library has a safe form of SO_PEERGROUPS")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// First guess of the number of groups. If it is too small, the kernel reports the right one.
const LIKELY: usize = 32;

const GID_LEN: usize = size_of::<libc::gid_t>();

/// Returns the groups that the kernel recorded at `connect` (unix(7), `SO_PEERGROUPS`, Linux 4.13): at most 65,536.
///
/// # Errors
///
/// Error of the kernel: it is older, or `socket` is not a connected Unix socket.
pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; LIKELY];
    loop {
        let room = groups.len();
        let mut len = libc::socklen_t::try_from(room * GID_LEN).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the kernel writes at most `len` bytes to `groups`, which is that long, and the length to `len`.
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
        // With ERANGE, `len` is the required length. The groups of a connection never change.
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
    fn the_groups_of_the_peer_are_those_of_its_process() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        let mut seen = of(socket.as_fd()).unwrap();
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
    }

    #[test]
    fn a_socket_of_another_kind_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(of(listener.as_fd()).is_err());
    }
}
