//! Token of the VMM through which a health check arrives.

use super::check_printable;
use crate::error::Invalid;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::str::FromStr;

/// Opaque token of one run of a VMM: 1 to 64 printable ASCII characters without a space. Equal
/// tokens mean the same run; an agent only compares them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct VmmToken(String);

impl VmmToken {
    /// Returns the token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmmToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VmmToken {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        check_printable("vmm_token", text)?;
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for VmmToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_short_and_printable() {
        for text in ["0", "vmm-1", &"f".repeat(64)] {
            assert_eq!(text.parse::<VmmToken>().unwrap().as_str(), text);
        }
        for text in ["", "a b", "a\n", "\u{1b}[2J", "é", "\0", &"f".repeat(65)] {
            assert_eq!(text.parse::<VmmToken>().unwrap_err().field, "vmm_token", "{text:?}");
        }
    }
}
