//! Ids of execs.

use crate::error::Invalid;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::str::FromStr;

/// Longest id, in bytes.
const MAX_LEN: usize = 64;

/// Id of an exec, chosen by the client or generated. It prevents the program from running twice,
/// and identifies the exec for re-attaching. Form: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, which needs
/// no escaping anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ExecId(String);

impl ExecId {
    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ExecId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut bytes = text.bytes();
        let starts_well = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric());
        let goes_on = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if starts_well && goes_on && text.len() <= MAX_LEN {
            return Ok(Self(text.to_owned()));
        }
        let rule = "must be 1 to 64 of A-Z a-z 0-9 . _ - and start with a letter or a digit";
        Err(Invalid::new("id", rule))
    }
}

impl<'de> Deserialize<'de> for ExecId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_needs_no_escaping() {
        for text in ["a", "0", "job-17.retry_2", &"x".repeat(64)] {
            assert_eq!(text.parse::<ExecId>().unwrap().as_str(), text);
        }
        for text in ["", "-a", ".", "a/b", "a b", "ä", "a\n", "a\0", &"x".repeat(65)] {
            assert!(text.parse::<ExecId>().is_err(), "{text:?}");
        }
    }
}
