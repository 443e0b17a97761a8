//! Rows of the tables.

use minions_api::declaration::Declaration;
use minions_api::pool::{Lease, LeaseKind};
use minions_api::{Timestamp, VmName};
use minions_declare::address_pool::AddressPool;
use minions_declare::declaration_set::StoredDeclaration;
use minions_declare::{Change, LeaseNeed, Plan, StoredPool, Target};
use minions_proto::Invalid;
use rusqlite::{Connection, Transaction, params};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Failure to read a row.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    /// SQLite cannot read the table.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The row has an impossible value.
    #[error("{table} {key:?}: {reason}")]
    Impossible {
        /// Name of the table.
        table: &'static str,
        /// Key of the row.
        key: String,
        /// Description of the value.
        reason: String,
    },
}

/// Tables of version 1. `declaration_pools` lets SQLite refuse to remove a pool that a declaration uses.
pub(super) const TABLES: &str = "
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL) STRICT;
INSERT INTO state VALUES (1, 0);
CREATE TABLE pools (name TEXT PRIMARY KEY, body TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
CREATE TABLE declarations (name TEXT PRIMARY KEY, body TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
CREATE TABLE declaration_pools (
    declaration TEXT NOT NULL REFERENCES declarations (name) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    pool TEXT NOT NULL REFERENCES pools (name) DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (declaration, pool)
) STRICT, WITHOUT ROWID;
CREATE INDEX declarations_of_pool ON declaration_pools (pool);
CREATE TABLE leases (
    address TEXT PRIMARY KEY, vm TEXT, interface TEXT NOT NULL, kind TEXT NOT NULL, unused_since_ms INTEGER
) STRICT;
";

/// Reads the whole state, as the changes that create it.
pub(super) fn read_all(connection: &Connection) -> Result<Plan, RowError> {
    let mut changes = Vec::new();
    let mut statement = connection.prepare("SELECT name, body, revision FROM pools")?;
    for row in statement.query_map([], versioned)? {
        let (name, body, revision) = row?;
        let pool = json("pools", &name, &body)?;
        let parsed = AddressPool::parse("", &pool);
        let pool = parsed.map_err(|error| impossible("pools", &name, &error))?;
        let stored = StoredPool { pool, revision: revision.cast_unsigned() };
        changes.push(Change::PutPool(Arc::new(stored)));
    }
    let mut statement = connection.prepare("SELECT name, body, revision FROM declarations")?;
    for row in statement.query_map([], versioned)? {
        let (name, body, revision) = row?;
        let declaration: Declaration = json("declarations", &name, &body)?;
        let target = Target::parse("name", &declaration.name);
        let target = target.map_err(|error| impossible("declarations", &name, &error))?;
        let revision = revision.cast_unsigned();
        let stored = StoredDeclaration { target, declaration, revision };
        changes.push(Change::PutDeclaration(Arc::new(stored)));
    }
    let mut statement =
        connection.prepare("SELECT address, vm, interface, kind, unused_since_ms FROM leases")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        changes.push(Change::PutLease(lease(row)?));
    }
    let revision: i64 = connection.query_row("SELECT revision FROM state", [], |row| row.get(0))?;
    Ok(Plan { changes, revision: revision.cast_unsigned() })
}

fn versioned(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, String, i64)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn json<T: serde::de::DeserializeOwned>(
    table: &'static str,
    key: &str,
    body: &str,
) -> Result<T, RowError> {
    serde_json::from_str(body).map_err(|error| impossible(table, key, &error))
}

fn impossible(table: &'static str, key: &str, reason: &dyn std::error::Error) -> RowError {
    RowError::Impossible { table, key: key.to_owned(), reason: reason.to_string() }
}

fn lease(row: &rusqlite::Row<'_>) -> Result<Lease, RowError> {
    let address: String = row.get(0)?;
    let bad = |reason: &dyn std::error::Error| impossible("leases", &address, reason);
    let vm: Option<String> = row.get(1)?;
    let vm = vm.map(|vm| vm.parse::<VmName>()).transpose().map_err(|error| bad(&error))?;
    let kind: String = row.get(3)?;
    let kinds = [LeaseKind::Pool, LeaseKind::Static, LeaseKind::Reserved, LeaseKind::Duplicate];
    let known = kinds.into_iter().find(|known| known.as_str() == kind);
    let kind = known.ok_or_else(|| bad(&Invalid::value("kind", &kind, "is unknown")))?;
    let since: Option<i64> = row.get(4)?;
    Ok(Lease {
        address: address.parse().map_err(|error| bad(&error))?,
        vm,
        interface: row.get(2)?,
        kind,
        unused_since: since.map(from_milliseconds),
    })
}

fn from_milliseconds(milliseconds: i64) -> Timestamp {
    Timestamp(UNIX_EPOCH + Duration::from_millis(milliseconds.max(0).cast_unsigned()))
}

fn milliseconds(time: Timestamp) -> i64 {
    let since: Result<Duration, _> = SystemTime::duration_since(&time.0, UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

/// Writes one change.
pub(super) fn write(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::PutPool(stored) => {
            let body = body(stored.pool.declared())?;
            transaction
                .prepare_cached(
                    "INSERT INTO pools VALUES (?1, ?2, ?3)
                     ON CONFLICT (name) DO UPDATE SET body = ?2, revision = ?3",
                )?
                .execute(params![stored.pool.name(), body, stored.revision.cast_signed()])?;
        }
        Change::RemovePool(name) => {
            transaction.prepare_cached("DELETE FROM pools WHERE name = ?1")?.execute([name])?;
        }
        Change::PutDeclaration(stored) => put_declaration(transaction, stored)?,
        Change::RemoveDeclaration(name) => {
            transaction
                .prepare_cached("DELETE FROM declarations WHERE name = ?1")?
                .execute([name])?;
        }
        Change::PutLease(lease) => put_lease(transaction, lease)?,
        Change::RemoveLease(address) => {
            transaction
                .prepare_cached("DELETE FROM leases WHERE address = ?1")?
                .execute([address.to_string()])?;
        }
    }
    Ok(())
}

/// Writes the revision of the state.
pub(super) fn write_revision(transaction: &Transaction<'_>, revision: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE state SET revision = ?1";
    transaction.prepare_cached(sql)?.execute([revision.cast_signed()]).map(|_| ())
}

fn put_declaration(
    transaction: &Transaction<'_>,
    stored: &StoredDeclaration,
) -> rusqlite::Result<()> {
    let StoredDeclaration { target, declaration, revision } = stored;
    transaction
        .prepare_cached(
            "INSERT INTO declarations VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET body = ?2, revision = ?3",
        )?
        .execute(params![target.as_str(), body(declaration)?, revision.cast_signed()])?;
    transaction
        .prepare_cached("DELETE FROM declaration_pools WHERE declaration = ?1")?
        .execute([target.as_str()])?;
    let addressing = declaration.network.as_ref().and_then(minions_declare::effective::addressing);
    for need in addressing.map(|one| one.needs()).unwrap_or_default() {
        let LeaseNeed::Pool { pool, .. } = need else { continue };
        transaction
            .prepare_cached("INSERT OR IGNORE INTO declaration_pools VALUES (?1, ?2)")?
            .execute([target.as_str(), &pool])?;
    }
    Ok(())
}

fn put_lease(transaction: &Transaction<'_>, lease: &Lease) -> rusqlite::Result<()> {
    let Lease { address, vm, interface, kind, unused_since } = lease;
    let vm: Option<&str> = vm.as_ref().map(VmName::as_str);
    let since = unused_since.map(milliseconds);
    transaction
        .prepare_cached("INSERT OR REPLACE INTO leases VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![address.to_string(), vm, interface, kind.as_str(), since])
        .map(|_| ())
}

fn body<T: serde::Serialize>(item: &T) -> rusqlite::Result<String> {
    serde_json::to_string(item)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
