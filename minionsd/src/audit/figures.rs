//! Counts of the audit log.

/// Counts for `GET /metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuditFigures {
    /// The last attempt to write an entry succeeded.
    pub(crate) is_writable: bool,
    /// Attempts to write an entry that failed.
    pub(crate) failures: u64,
    /// Entries that were never written.
    pub(crate) lost: u64,
}
