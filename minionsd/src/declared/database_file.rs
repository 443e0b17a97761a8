//! File of the database: its lock, and its creation.
//!
//! A new database gets its name when it is complete. So an empty or short file of this name is damage, and never the rest
//! of an interrupted creation.

use super::open_error::{StoreOpenError, open_error};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Length of the part of the header up to the number of pages, in bytes (sqlite.org/fileformat2.html, 1.3).
const HEADER: usize = 32;

/// Lock of the database, held until it is dropped. It has a file of its own, so that backups can be made with the tools
/// of SQLite while the daemon runs.
#[derive(Debug)]
pub(super) struct DatabaseLock(File);

impl DatabaseLock {
    /// Takes the lock of the database at `path`.
    pub(super) fn take(path: &Path) -> Result<Self, StoreOpenError> {
        let lock = with_suffix(path, ".lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&lock).map_err(|source| file_error(&lock, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreOpenError::InUse(path.to_owned())),
            Err(error) => Err(file_error(&lock, error.into())),
        }
    }
}

impl Drop for DatabaseLock {
    /// Unlocks. To close the file would not be enough: a process that another thread forks has a copy of the descriptor
    /// until it executes its program, and the lock would last as long.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Creates the database if it does not exist. `fill` creates its tables.
pub(super) fn create_if_missing(
    path: &Path,
    fill: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), StoreOpenError> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() == 0 => {
            let reason = "the file is empty".to_owned();
            return Err(StoreOpenError::Damaged { path: path.to_owned(), reason });
        }
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(file_error(path, source)),
    }
    let draft = with_suffix(path, ".new");
    remove_if_there(&draft)?;
    // The log of an earlier database must not be applied to this one.
    remove_if_there(&with_suffix(path, "-wal"))?;
    remove_if_there(&with_suffix(path, "-shm"))?;
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(&draft);
    let file = created.map_err(|source| file_error(path, source))?;
    let connection = Connection::open(&draft).map_err(|error| open_error(path, &error))?;
    fill(&connection).map_err(|error| open_error(path, &error))?;
    connection.close().map_err(|(_, error)| open_error(path, &error))?;
    let publish = || {
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        File::open(directory(path))?.sync_all()
    };
    publish().map_err(|source| file_error(path, source))
}

/// Checks that no page is missing at the end of the file: SQLite reads missing bytes as zeros. While the log has changes,
/// the file may be shorter, and the log has the missing pages.
pub(super) fn check_length(path: &Path) -> Result<(), StoreOpenError> {
    let failed = |source| file_error(path, source);
    let mut header = [0; HEADER];
    let mut file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let damaged = |reason| StoreOpenError::Damaged { path: path.to_owned(), reason };
    if file.read_exact(&mut header).is_err() {
        return Err(damaged(format!("it has only {len} bytes")));
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(damaged("it is not a database".to_owned()));
    }
    let [.., p1, p0, _, _, _, _, _, _, _, _, _, _, n3, n2, n1, n0] = header;
    let page = match u16::from_be_bytes([p1, p0]) {
        1 => 65536,
        size => u64::from(size),
    };
    let whole = page * u64::from(u32::from_be_bytes([n3, n2, n1, n0]));
    if !has_log(path) && len < whole {
        return Err(damaged(format!("it has {len} of {whole} bytes")));
    }
    Ok(())
}

/// Reports whether the log may have changes that are not in the file.
pub(super) fn has_log(path: &Path) -> bool {
    std::fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Returns the URI with which SQLite reads a file that no process changes.
pub(super) fn immutable_uri(path: &Path) -> OsString {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend(format!("%{byte:02X}").bytes()),
            byte => uri.push(*byte),
        }
    }
    uri.extend(b"?immutable=1");
    OsString::from_vec(uri)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn remove_if_there(path: &Path) -> Result<(), StoreOpenError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(file_error(path, source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn file_error(path: &Path, source: io::Error) -> StoreOpenError {
    StoreOpenError::File { path: path.to_owned(), source }
}
