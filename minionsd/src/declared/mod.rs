//! Declared state: what each VM must have, and its addresses, in a database.
//!
//! ```text
//!  handlers, reconciler ──plan──▶ writer thread ──transaction──▶ SQLite
//!        ▲                             │
//!        └──────── state in memory ◀───┘  after the commit
//! ```
//!
//! * [`database`]: the SQLite file. [`database_file`]: its creation and lock. [`open_error`]: reasons not to start.
//! * [`rows`]: rows of the tables. [`writer`]: the writer thread. [`store`]: the handle of
//!   all other tasks.

mod database;
mod database_file;
mod open_error;
mod rows;
mod store;
mod writer;

pub use open_error::StoreOpenError;
pub(crate) use store::{DeclaredStore, StoreError, StoreThread};
