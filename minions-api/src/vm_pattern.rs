//! Patterns of VM names, in requests and in the configuration.

use crate::vm_name::VmName;
use std::str::FromStr;
use wildmatch::WildMatch;

/// Longest pattern, in bytes.
const MAX_LEN: usize = 128;

/// Pattern of VM names, in which `*` stands for any characters and `?` for one.
#[derive(Debug, Clone, PartialEq)]
pub struct VmPattern(WildMatch);

impl Eq for VmPattern {}

/// Text that is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_LEN} characters of A-Z a-z 0-9 . _ - * ?")]
pub struct InvalidPattern;

impl VmPattern {
    /// Reports whether a name matches the whole pattern.
    #[must_use]
    pub fn matches(&self, name: &VmName) -> bool {
        self.0.matches(name.as_str())
    }
}

impl FromStr for VmPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let possible = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
        if text.is_empty() || text.len() > MAX_LEN || !text.bytes().all(possible) {
            return Err(InvalidPattern);
        }
        Ok(Self(WildMatch::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names() {
        for (pattern, matching, other) in [
            ("*", &["web-1", "a", "A.b_c"][..], &[][..]),
            ("web-*", &["web-1", "web-"], &["web", "aweb-1", "Web-1"]),
            ("*-db", &["eu-db"], &["eu-db2"]),
            ("web-?", &["web-1"], &["web-", "web-10"]),
            ("web-1", &["web-1"], &["web-11", "web-"]),
            ("a.b", &["a.b"], &["axb"]),
        ] {
            let compiled: VmPattern = pattern.parse().unwrap();
            for name in matching {
                assert!(compiled.matches(&name.parse().unwrap()), "{pattern} {name}");
            }
            for name in other {
                assert!(!compiled.matches(&name.parse().unwrap()), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn a_pattern_contains_only_characters_of_names_and_wildcards() {
        for text in ["", "web 1", "a/b", "[ab]", "wéb", "web-1,web-2", &"*".repeat(129)] {
            assert_eq!(text.parse::<VmPattern>(), Err(InvalidPattern), "{text:?}");
        }
    }
}
