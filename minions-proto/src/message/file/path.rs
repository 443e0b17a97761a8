//! Paths in a guest, which need not be UTF-8.

use crate::error::Invalid;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Longest path, in bytes: the kernel's `PATH_MAX` without the final NUL.
pub const MAX_PATH_LEN: usize = 4095;

/// Path of a request: the fields `path` and `path_base64`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestPath {
    /// Path as text. Ignored if `path_base64` is present.
    #[serde(default)]
    pub path: String,
    /// Bytes of a path that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
}

/// Second path of a request: the fields `to` and `to_base64`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestTarget {
    /// Path as text. Ignored if `to_base64` is present.
    #[serde(default)]
    pub to: String,
    /// Bytes of a path that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_base64: Option<String>,
}

impl GuestPath {
    /// Creates the fields for a path.
    #[must_use]
    pub fn new(path: &[u8]) -> Self {
        let (path, path_base64) = encoded(path);
        Self { path, path_base64 }
    }

    /// Returns the bytes of the path, which is absolute.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `op.path` or `op.path_base64`.
    pub fn bytes(&self) -> Result<Vec<u8>, Invalid> {
        absolute("op.path", &self.path, self.path_base64.as_deref())
    }

    /// Returns the bytes of a path that may be relative, as in a file session.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `path` or `path_base64`.
    pub fn bytes_of_any(&self) -> Result<Vec<u8>, Invalid> {
        not_empty("path", &self.path, self.path_base64.as_deref())
    }
}

impl GuestTarget {
    /// Creates the fields for a path.
    #[must_use]
    pub fn new(path: &[u8]) -> Self {
        let (to, to_base64) = encoded(path);
        Self { to, to_base64 }
    }

    /// Returns the bytes of the path, which is absolute.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `op.to` or `op.to_base64`.
    pub fn bytes(&self) -> Result<Vec<u8>, Invalid> {
        absolute("op.to", &self.to, self.to_base64.as_deref())
    }

    /// Returns the bytes of a path that may be relative, as in a file session.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `to` or `to_base64`.
    pub fn bytes_of_any(&self) -> Result<Vec<u8>, Invalid> {
        not_empty("to", &self.to, self.to_base64.as_deref())
    }
}

/// Returns a name as text, and as base64 if the text does not represent it exactly.
pub(crate) fn encoded(name: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(name) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(name).into_owned(), Some(STANDARD.encode(name))),
    }
}

/// Returns the bytes of a name, or `None` for invalid base64.
pub(crate) fn decoded(text: &str, base64: Option<&str>) -> Option<Vec<u8>> {
    match base64 {
        None => Some(text.as_bytes().to_vec()),
        Some(base64) => STANDARD.decode(base64).ok(),
    }
}

fn not_empty(field: &str, text: &str, base64: Option<&str>) -> Result<Vec<u8>, Invalid> {
    let (path, field) = checked(field, text, base64)?;
    if path.is_empty() {
        return Err(Invalid::new(field, "is missing or empty: must have at least 1 byte"));
    }
    Ok(path)
}

fn absolute(field: &str, text: &str, base64: Option<&str>) -> Result<Vec<u8>, Invalid> {
    let (path, field) = checked(field, text, base64)?;
    if path.first() != Some(&b'/') {
        let shown = String::from_utf8_lossy(&path);
        return Err(Invalid::value(field, &shown, "must be absolute: start it with /"));
    }
    Ok(path)
}

/// Returns the bytes of a path, and the name of the field that contains them.
fn checked(field: &str, text: &str, base64: Option<&str>) -> Result<(Vec<u8>, String), Invalid> {
    let base64_field = || format!("{field}_base64");
    let path = decoded(text, base64)
        .ok_or_else(|| Invalid::new(base64_field(), "must be standard base64 with padding"))?;
    let field = if base64.is_some() { base64_field() } else { field.to_owned() };
    if path.contains(&0) {
        return Err(Invalid::new(field, "contains a NUL byte"));
    }
    if path.len() > MAX_PATH_LEN {
        let reason = format!("has {} bytes: must have at most {MAX_PATH_LEN}", path.len());
        return Err(Invalid::new(field, reason));
    }
    Ok((path, field))
}
