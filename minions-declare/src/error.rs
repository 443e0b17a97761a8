//! Refusals of changes to the declared state.

use minions_api::VmName;
use minions_proto::Invalid;
use std::net::IpAddr;

/// Refusal of a change. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// A value is not allowed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Missing declaration.
    #[error("no declaration is named {0:?}; GET /declarations lists them")]
    NoDeclaration(String),
    /// Missing pool.
    #[error("no pool is named {0:?}; GET /pools lists them")]
    NoPool(String),
    /// Missing lease.
    #[error("{address} has no lease{}", in_pool(.pool.as_deref()))]
    NoLease {
        /// Name of the pool, if the request names one.
        pool: Option<String>,
        /// The address.
        address: IpAddr,
    },
    /// The item does not have the revision that the caller expects.
    #[error("{}", revision_message(.name, *.revision))]
    RevisionChanged {
        /// Name of the item.
        name: String,
        /// Revision of the item; `None` if it does not exist.
        revision: Option<u64>,
    },
    /// The pools contradict each other, or what was declared or leased.
    #[error("{0}")]
    PoolConflict(String),
    /// The address belongs to another VM.
    #[error("{address} {reason}")]
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// Holder, and what to do, as the rest of a sentence.
        reason: String,
    },
    /// The pool has no free address.
    #[error(
        "the pool {pool:?} has no free address for {vm}: extend its range, or release leases (minionsctl pool leases \
         {pool})"
    )]
    Exhausted {
        /// Name of the pool.
        pool: String,
        /// VM that needs an address.
        vm: VmName,
    },
}

fn in_pool(pool: Option<&str>) -> String {
    pool.map(|pool| format!(" in the pool {pool:?}")).unwrap_or_default()
}

fn revision_message(name: &str, revision: Option<u64>) -> String {
    match revision {
        Some(revision) => {
            format!("{name:?} has the revision {revision}: read it again, and repeat the change")
        }
        None => format!("{name:?} does not exist"),
    }
}
