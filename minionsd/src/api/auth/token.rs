//! The bearer token (RFC 6750).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Shorter ones can be guessed: 128 bits in base64 have 22 characters.
const MIN_LEN: usize = 22;

/// Nobody else may read the file.
const OTHERS: u32 = 0o077;

/// The daemon's token. Its text is never shown.
#[derive(Clone)]
pub(crate) struct Token(Arc<[u8]>);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("{} can't be read", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("{} may be read by others: take that permission away (chmod 600)", .0.display())]
    Exposed(PathBuf),
    /// What is in it is no token.
    #[error("{} must hold one line of at least {MIN_LEN} visible ASCII characters", .0.display())]
    Malformed(PathBuf),
}

impl Token {
    /// Reads it from a file of ours with mode 0600: one line.
    pub(crate) fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |source| TokenError::Unreadable { path: path.to_owned(), source };
        if fs::metadata(path).map_err(unreadable)?.mode() & OTHERS != 0 {
            return Err(TokenError::Exposed(path.to_owned()));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let token = text.trim_ascii();
        if token.len() < MIN_LEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Malformed(path.to_owned()));
        }
        Ok(Self(token.as_bytes().into()))
    }

    /// Whether an `Authorization` header shows it. Takes as long for a nearly right one as for any
    /// other of its length.
    pub(super) fn is_shown_by(&self, authorization: &[u8]) -> bool {
        let scheme = b"bearer ";
        authorization.split_at_checked(scheme.len()).is_some_and(|(said, token)| {
            said.eq_ignore_ascii_case(scheme) && bool::from(token.ct_eq(&self.0))
        })
    }
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

    fn read(text: &str, mode: u32) -> Result<Token, TokenError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        Token::read(file.path())
    }

    #[test]
    fn only_exactly_the_token_counts() {
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
    fn a_file_that_others_can_read_or_that_is_too_short_is_no_token() {
        let good = "0123456789abcdefghijklmn";
        assert!(matches!(read(good, 0o640), Err(TokenError::Exposed(_))));
        assert!(matches!(read("short", 0o600), Err(TokenError::Malformed(_))));
        assert!(matches!(read(&format!("{good}\n{good}"), 0o600), Err(TokenError::Malformed(_))));
        assert!(!format!("{:?}", read(good, 0o600).unwrap()).contains("0123"));
    }
}
