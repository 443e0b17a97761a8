//! The bearer token (RFC 6750).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::unistd::Group;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Minimum length of a token: 128 bits in base64 are 22 characters.
const MIN_LEN: usize = 22;

/// Random bytes in a created token.
const CREATED_BYTES: usize = 32;

/// Permissions that a token file must not have: any access for others, and write or execute for the group.
const FORBIDDEN: u32 = 0o037;

/// Read permission of the group; accepted for the operators' group only.
const GROUP_READ: u32 = 0o040;

/// File mode of a created token file: operators can read it.
const CREATED_MODE: u32 = 0o640;

/// The daemon's token. Its text is never printed or logged.
#[derive(Clone)]
pub(crate) struct Token(Arc<[u8]>);

/// Failure to read or create the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Users other than operators can read or change the file.
    #[error(
        "{} is accessible to users other than operators: run chmod 600, or chmod 640 with the group {group}",
        .path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The operators' group.
        group: String,
    },
    /// The content is not a valid token.
    #[error("{} must contain one line of at least {MIN_LEN} visible ASCII characters", .0.display())]
    Malformed(PathBuf),
    /// The file did not exist and cannot be created.
    #[error("cannot create {}", .path.display())]
    NotCreated {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Token {
    /// Reads the token from a file with one line and mode 0600, or 0640 if its group is the operators' (`group`).
    pub(crate) fn read(path: &Path, group: &str) -> Result<Self, TokenError> {
        let unreadable = |source| TokenError::Unreadable { path: path.to_owned(), source };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        let group_reads = metadata.mode() & GROUP_READ != 0;
        if metadata.mode() & FORBIDDEN != 0 || group_reads && Some(metadata.gid()) != gid_of(group)
        {
            return Err(TokenError::Exposed { path: path.to_owned(), group: group.to_owned() });
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let token = text.trim_ascii();
        if token.len() < MIN_LEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Malformed(path.to_owned()));
        }
        Ok(Self(token.as_bytes().into()))
    }

    /// Reads the token from `path`. If the file does not exist, creates it with a random token first: mode 0640 with the
    /// group `group`, or 0600 if that group does not exist.
    pub(crate) fn read_or_create(path: &Path, group: &str) -> Result<Self, TokenError> {
        if !path.exists() {
            let not_created = |source| TokenError::NotCreated { path: path.to_owned(), source };
            create(path, group).map_err(not_created)?;
            tracing::info!(path = %path.display(), "created the file with the bearer token");
        }
        Self::read(path, group)
    }

    /// Reports whether an `Authorization` header contains this token. The comparison takes the same time for all values
    /// of the same length.
    pub(super) fn is_shown_by(&self, authorization: &[u8]) -> bool {
        let scheme = b"bearer ";
        authorization.split_at_checked(scheme.len()).is_some_and(|(prefix, token)| {
            prefix.eq_ignore_ascii_case(scheme) && bool::from(token.ct_eq(&self.0))
        })
    }
}

/// Creates the file atomically; keeps a file that another process created in the meantime.
fn create(path: &Path, group: &str) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    let secret: [u8; CREATED_BYTES] = rand::random();
    writeln!(file, "{}", URL_SAFE_NO_PAD.encode(secret))?;
    open_to_group(file.as_file(), group)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => Ok(()),
    }
}

/// Gives the file to the group with mode 0640. Without the permission to do so, it keeps its initial mode 0600.
fn open_to_group(file: &File, group: &str) -> io::Result<()> {
    let Some(gid) = gid_of(group) else { return Ok(()) };
    if file.metadata()?.gid() != gid && fchown(file, None, Some(gid)).is_err() {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(CREATED_MODE))
}

fn gid_of(group: &str) -> Option<u32> {
    Group::from_name(group).ok().flatten().map(|group| group.gid.as_raw())
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A group that exists on every Debian, with gid 1.
    const GROUP: &str = "daemon";

    fn read(text: &str, mode: u32) -> Result<Token, TokenError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        Token::read(file.path(), GROUP)
    }

    #[test]
    fn only_exactly_this_token_is_accepted() {
        let token = read("0123456789abcdefghijklmn\n", 0o600).unwrap();
        assert!(token.is_shown_by(b"Bearer 0123456789abcdefghijklmn"));
        assert!(token.is_shown_by(b"bearer 0123456789abcdefghijklmn"));
        for shown in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdefghijklm",
            "Basic 0123456789abcdefghijklmn",
            "Bearer 0123456789abcdefghijklmno",
            "0123456789abcdefghijklmn",
            "Bearer  0123456789abcdefghijklmn",
        ] {
            assert!(!token.is_shown_by(shown.as_bytes()), "{shown:?}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_too_short_is_refused() {
        let good = "0123456789abcdefghijklmn";
        // The file's group is root, not the operators' group.
        assert!(matches!(read(good, 0o640), Err(TokenError::Exposed { .. })));
        assert!(matches!(read(good, 0o604), Err(TokenError::Exposed { .. })));
        assert!(matches!(read("short", 0o600), Err(TokenError::Malformed(_))));
        assert!(matches!(read(&format!("{good}\n{good}"), 0o600), Err(TokenError::Malformed(_))));
        assert!(!format!("{:?}", read(good, 0o600).unwrap()).contains("0123"));
    }

    #[test]
    fn the_operators_group_may_have_read_but_not_write_permission() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "0123456789abcdefghijklmn").unwrap();
        fchown(file.as_file(), None, gid_of(GROUP)).unwrap();
        for (mode, accepted) in [(0o640, true), (0o600, true), (0o660, false), (0o644, false)] {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(Token::read(file.path(), GROUP).is_ok(), accepted, "{mode:o}");
        }
    }

    #[test]
    fn a_missing_file_is_created_once_with_a_unique_token() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let token = Token::read_or_create(&first, GROUP).unwrap();
        let metadata = fs::metadata(&first).unwrap();
        assert_eq!((metadata.mode() & 0o777, Some(metadata.gid())), (0o640, gid_of(GROUP)));
        assert_eq!(Token::read_or_create(&first, GROUP).unwrap().0, token.0);
        assert_ne!(Token::read_or_create(&second, GROUP).unwrap().0, token.0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn without_the_group_only_the_owner_can_read_the_created_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        Token::read_or_create(&path, "no-such-group").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_error_for_a_missing_directory_names_the_path() {
        let path = Path::new("/nowhere/token");
        let error = Token::read_or_create(path, GROUP).unwrap_err();
        assert!(matches!(&error, TokenError::NotCreated { .. }), "{error}");
        assert!(error.to_string().contains("/nowhere/token"), "{error}");
    }
}
