//! The SSH host key of the local user, and the known-hosts file that contains it.
//!
//! Each local user has one key for all VMs: the peer of the SSH client is always a process of the same user, on the
//! same machine. The files are in `$XDG_STATE_HOME/minions` or `~/.local/state/minions` (XDG Base Directory).

use crate::bounded_file;
use crate::ssh_error::SshError;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use rustix::rand::{GetRandomFlags, getrandom};
use std::env;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Name under which the known-hosts file lists the key (`HostKeyAlias`).
pub(super) const KEY_ALIAS: &str = "minions";

const KEY_FILE: &str = "ssh_host_ed25519_key";
const KNOWN_HOSTS_FILE: &str = "known_hosts";

/// Maximum size of the key file, in bytes. The file of an Ed25519 key has about 400.
const MAX_KEY_FILE: usize = 16 * 1024;

/// Host key, and the known-hosts file with which SSH clients verify it.
#[derive(Debug)]
pub(crate) struct HostIdentity {
    pub(super) key: PrivateKey,
    pub(super) known_hosts: PathBuf,
}

impl HostIdentity {
    /// Loads the key of the local user, or creates it.
    pub(crate) fn load_or_create() -> Result<Self, SshError> {
        Self::in_directory(&state_directory().ok_or(SshError::NoStateDirectory)?)
    }

    fn in_directory(directory: &Path) -> Result<Self, SshError> {
        let failed = |source| SshError::Write { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let key = load_or_create_key(&directory.join(KEY_FILE))?;
        let known_hosts = directory.join(KNOWN_HOSTS_FILE);
        let public = key.public_key().to_openssh();
        let public =
            public.map_err(|source| SshError::Key { path: directory.join(KEY_FILE), source })?;
        let line = format!("{KEY_ALIAS} {public}\n");
        if bounded_file::read(&known_hosts, MAX_KEY_FILE).ok().as_deref() != Some(line.as_bytes()) {
            replace(&known_hosts, line.as_bytes())?;
        }
        Ok(Self { key, known_hosts })
    }
}

/// Returns the directory of the host key. A relative `XDG_STATE_HOME` is ignored, as its specification requires.
fn state_directory() -> Option<PathBuf> {
    let absolute =
        |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(base.join("minions"))
}

fn load_or_create_key(path: &Path) -> Result<PrivateKey, SshError> {
    match bounded_file::read(path, MAX_KEY_FILE) {
        Ok(text) => parse_key(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_key(path)?;
            // Another process may have created the key in the meantime, so the key is always read from the file.
            let text = bounded_file::read(path, MAX_KEY_FILE);
            parse_key(path, &text.map_err(|source| write_failed(path, source))?)
        }
        Err(source) => Err(write_failed(path, source)),
    }
}

fn parse_key(path: &Path, text: &[u8]) -> Result<PrivateKey, SshError> {
    let metadata = fs::metadata(path).map_err(|source| write_failed(path, source))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SshError::KeyMode { path: path.to_owned(), mode });
    }
    PrivateKey::from_openssh(text).map_err(|source| SshError::Key { path: path.to_owned(), source })
}

/// Creates a key file, unless another process creates it first. A reader never sees an incomplete file.
fn create_key(path: &Path) -> Result<(), SshError> {
    let mut seed = [0; 32];
    // getrandom(2) never returns a part of up to 256 bytes.
    getrandom(&mut seed, GetRandomFlags::empty())
        .map_err(|error| SshError::Random(error.into()))?;
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    key.set_comment(KEY_ALIAS);
    let text = key
        .to_openssh(LineEnding::LF)
        .map_err(|source| SshError::Key { path: path.to_owned(), source })?;
    let draft = write_draft(path, text.as_bytes())?;
    let linked = fs::hard_link(&draft, path);
    let _ = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(write_failed(path, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a file completely, or not at all. Only the local user may read it.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), SshError> {
    let draft = write_draft(path, content)?;
    fs::rename(&draft, path).map_err(|source| {
        let _ = fs::remove_file(&draft);
        write_failed(path, source)
    })
}

/// Writes a new file in the directory of `path`, and returns its path.
fn write_draft(path: &Path, content: &[u8]) -> Result<PathBuf, SshError> {
    let draft = path.with_added_extension(Uuid::new_v4().to_string());
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    written.map(|()| draft.clone()).map_err(|source| {
        let _ = fs::remove_file(&draft);
        write_failed(path, source)
    })
}

fn write_failed(path: &Path, source: io::Error) -> SshError {
    SshError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    #[test]
    fn the_key_is_created_once_and_only_its_user_may_read_it() {
        let dir = tempdir().unwrap();
        let state = dir.path().join("deep/minions");
        let first = HostIdentity::in_directory(&state).unwrap();
        let again = HostIdentity::in_directory(&state).unwrap();
        assert_eq!(first.key.public_key(), again.key.public_key());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(KEY_FILE))), (0o700, 0o600));
        let known = fs::read_to_string(&first.known_hosts).unwrap();
        assert!(known.starts_with("minions ssh-ed25519 AAAA"), "{known}");
        let names = fs::read_dir(&state).unwrap().count();
        assert_eq!(names, 2, "a draft is left");
    }

    #[test]
    fn processes_that_start_at_the_same_time_agree_on_one_key() {
        let dir = tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let create = || HostIdentity::in_directory(dir.path()).unwrap().key;
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| key.public_key() == keys[0].public_key()));
    }

    #[test]
    fn a_known_hosts_file_with_another_key_is_replaced() {
        let dir = tempdir().unwrap();
        let identity = HostIdentity::in_directory(dir.path()).unwrap();
        let known = fs::read(&identity.known_hosts).unwrap();
        fs::write(&identity.known_hosts, "minions ssh-ed25519 AAAA\n").unwrap();
        HostIdentity::in_directory(dir.path()).unwrap();
        assert_eq!(fs::read(&identity.known_hosts).unwrap(), known);
    }

    #[test]
    fn a_key_file_that_is_shared_or_malformed_is_refused() {
        let dir = tempdir().unwrap();
        HostIdentity::in_directory(dir.path()).unwrap();
        let key = dir.path().join(KEY_FILE);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = HostIdentity::in_directory(dir.path()).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, "no key").unwrap();
        let error = HostIdentity::in_directory(dir.path()).unwrap_err().to_string();
        assert!(error.contains(KEY_FILE) && error.contains("remove it"), "{error}");
    }
}
