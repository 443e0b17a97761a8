//! Reasons why the database of the declared state cannot be opened.

use std::io;
use std::path::PathBuf;

/// Reason why the daemon does not start: it would continue without what was declared, and give addresses twice.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// A file cannot be created, opened or read.
    #[error("cannot open the database {}: {}", .path.display(), advice(.source))]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process has the lock.
    #[error(
        "the database {} is in use by another minionsd: stop it, or give this one another `state`", .0.display()
    )]
    InUse(PathBuf),
    /// The file is not a complete database of minionsd.
    #[error(
        "the database {} is damaged ({reason}): restore it from a backup, or move it away to start without declared \
         state (docs/OPERATIONS.md, \"Declared state\")", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        reason: String,
    },
    /// A newer minionsd wrote the file.
    #[error(
        "the database {} has the version {found}, and this minionsd knows versions up to {known}: upgrade minionsd, or \
         restore a backup from before the upgrade", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version of the file.
        found: i64,
        /// Latest version that this program knows.
        known: i64,
    },
    /// The disk has no room for what SQLite must write.
    #[error("cannot write the database {} ({reason}): make room on its disk", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Cause from SQLite.
        reason: String,
    },
    /// The database cannot be used for another reason.
    #[error("cannot use the database {}: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Cause from SQLite or the operating system.
        reason: String,
    },
}

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{error}; create the directory, or set `state` to another path or to \"none\"")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("{error}; set `state` to a path that minionsd may write, or to \"none\"")
        }
        _ => error.to_string(),
    }
}

/// Converts an error of SQLite while the file is opened.
pub(super) fn open_error(path: &std::path::Path, error: &rusqlite::Error) -> StoreOpenError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreOpenError::Full { path, reason },
        Some(rusqlite::ErrorCode::SystemIoFailure) if is_failed_write(error) => {
            StoreOpenError::Full { path, reason }
        }
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            StoreOpenError::Damaged { path, reason }
        }
        _ => StoreOpenError::Unusable { path, reason },
    }
}

/// Reports whether an I/O error is one of a write. SQLite reports a full disk in this way where it extends the index of the
/// log.
fn is_failed_write(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{
        SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_TRUNCATE,
        SQLITE_IOERR_WRITE,
    };
    let code = error.sqlite_error().map(|error| error.extended_code);
    let writes = [
        SQLITE_IOERR_FSYNC,
        SQLITE_IOERR_SHMOPEN,
        SQLITE_IOERR_SHMSIZE,
        SQLITE_IOERR_TRUNCATE,
        SQLITE_IOERR_WRITE,
    ];
    code.is_some_and(|code| writes.contains(&code))
}
