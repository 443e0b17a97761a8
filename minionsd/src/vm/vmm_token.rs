//! Token of a VMM, which tells the agent through which VMM a health check arrives.
//!
//! It is derived from the socket: a VMM that starts, also to restore a guest, binds a new one. The socket's device and
//! inode numbers and the time of `bind(2)` are the same for every daemon on the host, also for a daemon in another
//! namespace of processes, which can see neither the pid nor the start time of the VMM. The boot id of the host
//! distinguishes sockets of different boots, whose clocks may have been wrong.

use crate::agent::SocketId;
use minions_proto::message::VmmToken;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// Number of bytes of the hash in a token.
const LEN: usize = 16;

/// Boot id of the host; empty if `/proc` hides it.
static HOST_BOOT: LazyLock<String> = LazyLock::new(|| {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
});

/// Returns the token of the VMM that has bound this socket.
pub(super) fn of(socket: &SocketId) -> VmmToken {
    let mut hash = Sha256::new();
    hash.update(b"minions vmm token 1\n");
    hash.update(HOST_BOOT.as_bytes());
    hash.update(socket.to_bytes());
    let digest = hash.finalize();
    hex::encode(&digest[..LEN]).parse().expect("32 hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_token_belongs_to_one_bind_and_survives_what_administrators_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web-1.vsock");
        let token = |path: &std::path::Path| of(&SocketId::at(path).unwrap());
        let first = UnixListener::bind(&path).unwrap();
        let before = token(&path);
        assert_eq!(before.as_str().len(), 2 * LEN);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
        std::os::unix::fs::chown(&path, None, None).unwrap();
        let (moved, link) = (dir.path().join("moved"), dir.path().join("link"));
        std::fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &link).unwrap();
        assert_eq!([token(&moved), token(&link)], [before.clone(), before.clone()]);
        std::fs::remove_file(&moved).unwrap();
        drop(first);
        let _second = UnixListener::bind(&path).unwrap();
        assert_ne!(token(&path), before);
    }
}
