//! Names and patterns of declarations.

use minions_api::{VmName, VmPattern};
use minions_proto::Invalid;
use std::cmp::{Ordering, Reverse};
use std::fmt;

/// VMs of a declaration: one name, or a pattern of names.
///
/// The order is that of precedence, the most specific target first: a name before all patterns, a pattern with more
/// characters other than wildcards before one with fewer, then one with fewer `*`, then one with more `?`, then by text. No target refers to
/// another one, so precedence has no cycles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    names: TargetNames,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TargetNames {
    One(VmName),
    Matching(VmPattern),
}

impl Target {
    /// Parses a name or a pattern.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let names = if text.contains(['*', '?']) {
            let pattern = text.parse();
            TargetNames::Matching(
                pattern.map_err(|error| Invalid::value(field, text, &format!("{error}")))?,
            )
        } else {
            let name = text.parse();
            TargetNames::One(
                name.map_err(|error| Invalid::value(field, text, &format!("{error}")))?,
            )
        };
        Ok(Self { text: text.to_owned(), names })
    }

    /// Returns the name or the pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name of the only VM; `None` for a pattern.
    #[must_use]
    pub fn vm(&self) -> Option<&VmName> {
        match &self.names {
            TargetNames::One(name) => Some(name),
            TargetNames::Matching(_) => None,
        }
    }

    /// Reports whether the declaration is for this VM.
    #[must_use]
    pub fn matches(&self, vm: &VmName) -> bool {
        match &self.names {
            TargetNames::One(name) => name == vm,
            TargetNames::Matching(pattern) => pattern.matches(vm),
        }
    }

    /// Describes the precedence, for people.
    #[must_use]
    pub fn specificity(&self) -> String {
        if self.vm().is_some() {
            return "the name of the VM".to_owned();
        }
        let wildcards = self.text.matches(['*', '?']).count();
        let literals = self.text.len() - wildcards;
        let unit = if literals == 1 { "character" } else { "characters" };
        format!("a pattern with {literals} {unit} other than wildcards")
    }

    fn precedence(&self) -> (bool, Reverse<usize>, usize, Reverse<usize>, &str) {
        let count = |wildcard| self.text.matches(wildcard).count();
        let (stars, singles) = (count('*'), count('?'));
        let literals = self.text.len() - stars - singles;
        (self.vm().is_none(), Reverse(literals), stars, Reverse(singles), &self.text)
    }
}

impl Ord for Target {
    fn cmp(&self, other: &Self) -> Ordering {
        self.precedence().cmp(&other.precedence())
    }
}

impl PartialOrd for Target {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_target_comes_first() {
        let order = ["web-1", "web-eu-*", "web-?", "web-*", "web*", "*-1", "?*", "*", "**"];
        let mut sorted: Vec<_> =
            order.iter().rev().map(|text| Target::parse("name", text).unwrap()).collect();
        sorted.sort();
        assert_eq!(sorted.iter().map(Target::as_str).collect::<Vec<_>>(), order);
    }

    #[test]
    fn a_target_is_a_name_or_a_pattern_of_names() {
        for text in ["", "a b", "-a", "../x", "a/*", "[ab]*"] {
            let error = Target::parse("declarations[3].name", text).unwrap_err();
            assert_eq!(error.field, "declarations[3].name", "{text:?}");
        }
        let pattern = Target::parse("name", "web-*").unwrap();
        assert!(pattern.matches(&"web-1".parse().unwrap()) && pattern.vm().is_none());
        assert!(!pattern.matches(&"db-1".parse().unwrap()));
    }
}
