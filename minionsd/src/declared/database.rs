//! Database of the declared state, in one SQLite file.

use super::database_file::{DatabaseLock, check_length, create_if_missing, has_log, immutable_uri};
use super::open_error::{StoreOpenError, open_error};
use super::rows::{self, RowError};
use minions_declare::Plan;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the tables (`PRAGMA user_version`).
const VERSION: i64 = 1;

/// Mark of minionsd's databases (`PRAGMA application_id`): "mnio".
const APPLICATION: i64 = 0x6d6e_696f;

/// Time that a write waits for a tool that holds the database.
const BUSY: Duration = Duration::from_secs(5);

/// Failure to write. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// SQLite cannot write.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The file could only be read when the daemon started, and still cannot be written.
    #[error(transparent)]
    Open(#[from] StoreOpenError),
}

/// Open database. Only the writer thread has it.
#[derive(Debug)]
pub(super) struct StateDatabase {
    /// `None` while the disk is full since the start of the daemon: SQLite needs room even to open the file for writing.
    connection: Option<Connection>,
    path: PathBuf,
    _lock: DatabaseLock,
}

impl StateDatabase {
    /// Opens the database, creates it if it does not exist, and reads it completely. A database on a full disk is read, and
    /// opened for writing by the first [`write`](Self::write) after that.
    pub(super) fn open(path: &Path) -> Result<(Self, Plan), StoreOpenError> {
        let lock = DatabaseLock::take(path)?;
        create_if_missing(path, |connection| {
            connection.execute_batch(rows::TABLES)?;
            connection.pragma_update(None, "application_id", APPLICATION)?;
            connection.pragma_update(None, "user_version", VERSION)
        })?;
        check_length(path)?;
        let (connection, all) = match connect(path) {
            Ok(connection) => {
                let all = read(path, &connection)?;
                (Some(connection), all)
            }
            Err(full @ StoreOpenError::Full { .. }) => {
                let all = read_on_full_disk(path)?;
                tracing::error!(error = %full, "started with the declared state as it is stored; changes are refused");
                (None, all)
            }
            Err(error) => return Err(error),
        };
        Ok((Self { connection, path: path.to_owned(), _lock: lock }, all))
    }

    /// Reports whether the last attempt to open the file for writing has succeeded.
    pub(super) fn is_writable(&self) -> bool {
        self.connection.is_some()
    }

    /// Writes a plan in one transaction. After an error, nothing of it is written.
    pub(super) fn write(&mut self, plan: &Plan) -> Result<(), WriteError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.path)?),
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in &plan.changes {
            rows::write(&transaction, change)?;
        }
        rows::write_revision(&transaction, plan.revision)?;
        Ok(transaction.commit()?)
    }
}

/// Opens the file for reading and writing, and checks that it can be written.
fn connect(path: &Path) -> Result<Connection, StoreOpenError> {
    let failed = |error: rusqlite::Error| open_error(path, &error);
    let connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    check_version(path, &connection)?;
    check_pages(path, &connection)?;
    // FULL: an acknowledged change survives a power failure.
    connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    // So that a read-only or full disk is noticed at the start.
    connection.execute("UPDATE state SET revision = revision", []).map_err(failed)?;
    Ok(connection)
}

/// Reads the database without writing anything, not even the files that SQLite needs for other processes: the lock keeps
/// other daemons away.
fn read_on_full_disk(path: &Path) -> Result<Plan, StoreOpenError> {
    let failed = |error: rusqlite::Error| open_error(path, &error);
    let connection = if has_log(path) {
        // The log has changes that are not in the file. The index of the log is in memory in this mode.
        let connection = Connection::open(path).map_err(failed)?;
        let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(no_checkpoint, true).map_err(failed)?;
        connection.pragma_update(None, "locking_mode", "exclusive").map_err(failed)?;
        connection
    } else {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(immutable_uri(path), flags).map_err(failed)?
    };
    check_version(path, &connection)?;
    check_pages(path, &connection)?;
    read(path, &connection)
}

fn read(path: &Path, connection: &Connection) -> Result<Plan, StoreOpenError> {
    rows::read_all(connection).map_err(|error| match error {
        RowError::Sqlite(error) => open_error(path, &error),
        error @ RowError::Impossible { .. } => damaged(path, error.to_string()),
    })
}

fn check_version(path: &Path, connection: &Connection) -> Result<(), StoreOpenError> {
    let number = |pragma| {
        let read = connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        read.map_err(|error| open_error(path, &error))
    };
    if number("application_id")? != APPLICATION {
        return Err(damaged(path, "it is not a database of minionsd".to_owned()));
    }
    match number("user_version")? {
        VERSION => Ok(()),
        found if found > VERSION => {
            Err(StoreOpenError::Newer { path: path.to_owned(), found, known: VERSION })
        }
        found => Err(damaged(path, format!("its version is {found}"))),
    }
}

/// Checks the structure of all pages.
fn check_pages(path: &Path, connection: &Connection) -> Result<(), StoreOpenError> {
    let check = connection.pragma_query_value(None, "quick_check", |row| row.get::<_, String>(0));
    match check.map_err(|error| open_error(path, &error))?.as_str() {
        "ok" => Ok(()),
        problem => Err(damaged(path, problem.lines().next().unwrap_or_default().to_owned())),
    }
}

fn damaged(path: &Path, reason: String) -> StoreOpenError {
    StoreOpenError::Damaged { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests;
