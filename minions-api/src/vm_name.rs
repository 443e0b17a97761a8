//! Names of VMs.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name, in bytes.
pub const MAX_LEN: usize = 63;

/// Grammar of a name as a regular expression, for the OpenAPI document and error messages.
pub const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";

/// VM name that matches [`PATTERN`]. It is a key of the registry and never joined into a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(Arc<str>);

/// Error of a text that is not a VM name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a VM name has 1 to {MAX_LEN} characters: letters, digits, `.`, `_`, `-`, the first a letter or digit"
)]
pub struct InvalidVmName;

impl VmName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VmName {
    type Err = InvalidVmName;

    fn from_str(text: &str) -> Result<Self, InvalidVmName> {
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let stays_well =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if starts_well && stays_well && text.len() <= MAX_LEN {
            Ok(Self(text.into()))
        } else {
            Err(InvalidVmName)
        }
    }
}

impl TryFrom<String> for VmName {
    type Error = InvalidVmName;

    fn try_from(text: String) -> Result<Self, InvalidVmName> {
        text.parse()
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for VmName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("Name of a VM: the file name of its socket without `.vsock`."))
            .pattern(Some(PATTERN))
            .examples(["agent-test-vm"])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for VmName {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn path_traversal_and_separators_are_rejected() {
        for text in
            ["", ".", "..", "../etc", "a/b", "a\\b", "-a", "_a", "a b", "a\0", "ä", "a\n", "..%2f"]
        {
            assert_eq!(text.parse::<VmName>(), Err(InvalidVmName), "{text:?}");
        }
        assert!("x".repeat(MAX_LEN).parse::<VmName>().is_ok());
        assert!("x".repeat(MAX_LEN + 1).parse::<VmName>().is_err());
    }

    proptest! {
        #[test]
        fn the_pattern_and_the_parser_agree(text in "[A-Za-z0-9._/ -]{0,66}") {
            let bytes = text.as_bytes();
            let matches = (1..=63).contains(&bytes.len())
                && bytes[0].is_ascii_alphanumeric()
                && !text.contains(['/', ' ']);
            prop_assert_eq!(text.parse::<VmName>().is_ok(), matches);
        }
    }
}
