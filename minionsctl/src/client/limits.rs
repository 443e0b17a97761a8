//! Limits for answers, so that a server that never ends one cannot fill the memory.

/// A mebibyte, in bytes.
pub(super) const MIB: usize = 1024 * 1024;

/// Maximum length of a JSON answer or of a line of NDJSON, in bytes. The longest is a collected result with both
/// outputs, as escaped text and as base64.
pub(super) const MAX_JSON: usize = 1024 * MIB;

/// Maximum length of a problem, in bytes. Its texts are a few sentences.
pub(super) const MAX_PROBLEM: usize = MIB;
