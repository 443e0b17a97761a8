//! Bounds and filters of candidates.

use crate::output::{harmless, is_active};
use clap_complete::CompletionCandidate;
use std::collections::BTreeSet;

/// Maximum number of candidates. More do not help: bash already asks before it lists 100, and a shell takes
/// milliseconds for each hundred. A directory of a guest, which the guest makes as large as it likes, must not fill the
/// shell's memory.
pub(super) const MAX_CANDIDATES: usize = 500;

/// Longest value, in bytes: as a path of Linux, with the name of a VM before it.
const MAX_VALUE: usize = 4096 + 64;

/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 60;

/// Value of a word, and a description for shells that show one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WordCandidate {
    pub(super) value: String,
    pub(super) description: String,
}

/// Sorted set of at most [`MAX_CANDIDATES`] values. Of more, it has the first ones and the last one: a shell inserts
/// the longest common prefix of the candidates, which is that of the first and the last one.
#[derive(Debug, Default)]
pub(super) struct CandidateSet(BTreeSet<WordCandidate>);

impl CandidateSet {
    /// Adds a candidate, unless it is not [presentable](is_presentable).
    pub(super) fn add(&mut self, value: String, description: &str) {
        if !is_presentable(&value) {
            return;
        }
        let description = harmless(description).chars().take(MAX_DESCRIPTION).collect();
        self.0.insert(WordCandidate { value, description });
        if self.0.len() > MAX_CANDIDATES {
            let last = self.0.pop_last();
            self.0.pop_last();
            self.0.extend(last);
        }
    }

    /// Returns the candidates, sorted.
    pub(super) fn into_sorted(self) -> Vec<WordCandidate> {
        self.0.into_iter().collect()
    }
}

/// Reports whether a value can be typed and shown: no control characters, whose meaning for the terminal, the shell or
/// the protocol of the script a hostile guest could use, and no invisible ones.
fn is_presentable(value: &str) -> bool {
    !value.is_empty() && value.len() <= MAX_VALUE && !value.chars().any(is_active)
}

/// Returns the candidates that are shown for the typed word. Options are shown only for a word that begins with a dash:
/// otherwise they would surround each list of names.
pub(super) fn selected(found: Vec<CompletionCandidate>, typed: &str) -> Vec<WordCandidate> {
    let is_option = |candidate: &CompletionCandidate| {
        candidate.get_id().is_some_and(|id| id.starts_with("arg::"))
    };
    let shows_options = typed.starts_with('-');
    let mut set = CandidateSet::default();
    for candidate in found.iter().filter(|candidate| shows_options || !is_option(candidate)) {
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let first_line = help.lines().next().unwrap_or_default();
        if let Some(value) = candidate.get_value().to_str() {
            set.add(value.to_owned(), first_line);
        }
    }
    set.into_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_control_or_invisible_character_is_left_out() {
        let mut set = CandidateSet::default();
        for value in ["", "a\nb", "a\tb", "a\u{1b}[2J", "a\u{9b}2J", "a\u{200b}", "a\rb", "a\0"] {
            set.add(value.to_owned(), "");
        }
        set.add("x".repeat(MAX_VALUE + 1), "");
        assert_eq!(set.into_sorted(), []);
        let mut set = CandidateSet::default();
        set.add("My File $(x) ä".to_owned(), "a\x1b[31m");
        let [candidate] = set.into_sorted().try_into().unwrap();
        assert_eq!(candidate.value, "My File $(x) ä");
        assert_eq!(candidate.description, "a\\u{1b}[31m");
    }

    #[test]
    fn of_too_many_values_the_first_ones_and_the_last_one_remain() {
        let mut set = CandidateSet::default();
        for number in (0..3 * MAX_CANDIDATES).rev() {
            set.add(format!("node-{number:05}"), "");
        }
        let sorted = set.into_sorted();
        assert_eq!(sorted.len(), MAX_CANDIDATES);
        assert_eq!(sorted[0].value, "node-00000");
        assert_eq!(sorted[MAX_CANDIDATES - 2].value, "node-00498");
        assert_eq!(sorted[MAX_CANDIDATES - 1].value, "node-01499");
    }
}
