//! Reads small files, such as a token or a configuration.
//!
//! A path may name a device or a FIFO that never ends, so a read stops at a limit.

use crate::failure::Failure;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Largest file of settings, a token or certificates, in bytes. A CA bundle of a distribution has 0.3 MB.
pub(crate) const MAX_SETTINGS: usize = 4 * 1024 * 1024;

/// Reads a file of at most `at_most` bytes.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`], and errors of the file.
pub(crate) fn read(path: &Path, at_most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(at_most).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > at_most {
        let limit = at_most / (1024 * 1024);
        let message = format!("the file is larger than {limit} MiB");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Reads a file of settings; names it in the error.
///
/// # Errors
///
/// [`Failure::File`].
pub(crate) fn read_settings(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, MAX_SETTINGS).map_err(|source| Failure::File { path: path.to_owned(), source })
}

/// Reads a text file of settings; names it in the error.
///
/// # Errors
///
/// [`Failure::File`], also if the file is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_settings(path)?).map_err(|error| Failure::File {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}
