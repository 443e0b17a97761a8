//! Limits for answers, so that a server that never ends one cannot fill the memory.

/// A mebibyte, in bytes.
pub(super) const MIB: usize = 1024 * 1024;

/// Longest accepted JSON answer or line of NDJSON, in bytes: a collected result with both outputs, as escaped text and
/// as base64.
pub(super) const MAX_JSON: usize = 1024 * MIB;

/// Longest accepted problem, in bytes. Its texts are a few sentences.
pub(super) const MAX_PROBLEM: usize = MIB;
