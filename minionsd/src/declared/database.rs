//! Database of the declared state, in one SQLite file.

use super::database_file::{DatabaseLock, check_length, create_if_missing};
use super::open_error::{StoreOpenError, open_error};
use super::rows::{self, RowError};
use minions_declare::Plan;
use rusqlite::{Connection, TransactionBehavior};
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
}

/// Open database. Only the writer thread has it.
#[derive(Debug)]
pub(super) struct StateDatabase {
    connection: Connection,
    path: PathBuf,
    _lock: DatabaseLock,
}

impl StateDatabase {
    /// Opens the database, creates it if it does not exist, and reads it completely.
    pub(super) fn open(path: &Path) -> Result<(Self, Plan), StoreOpenError> {
        let lock = DatabaseLock::take(path)?;
        create_if_missing(path, |connection| {
            connection.execute_batch(rows::TABLES)?;
            connection.pragma_update(None, "application_id", APPLICATION)?;
            connection.pragma_update(None, "user_version", VERSION)
        })?;
        check_length(path)?;
        let failed = |error: rusqlite::Error| open_error(path, &error);
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        check_version(path, &connection)?;
        check_pages(path, &connection)?;
        // FULL: an acknowledged change survives a power failure.
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        let all = rows::read_all(&connection).map_err(|error| match error {
            RowError::Sqlite(error) => open_error(path, &error),
            error @ RowError::Impossible { .. } => damaged(path, error.to_string()),
        })?;
        let database = Self { connection, path: path.to_owned(), _lock: lock };
        database.check_writable()?;
        Ok((database, all))
    }

    /// Writes a plan in one transaction. After an error, nothing of it is written.
    pub(super) fn write(&mut self, plan: &Plan) -> Result<(), WriteError> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        for change in &plan.changes {
            rows::write(&transaction, change)?;
        }
        rows::write_revision(&transaction, plan.revision)?;
        Ok(transaction.commit()?)
    }

    /// Checks that the file can be written, so that a read-only disk is noticed at the start.
    fn check_writable(&self) -> Result<(), StoreOpenError> {
        let touched = self.connection.execute("UPDATE state SET revision = revision", []);
        touched.map(|_| ()).map_err(|error| open_error(&self.path, &error))
    }
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
