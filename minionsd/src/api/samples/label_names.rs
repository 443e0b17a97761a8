//! Declared labels as labels of Prometheus, whose names may have letters, digits and underscores only.

use minions_api::label::Labels;
use std::collections::BTreeMap;

/// Returns the labels with a prefix before their names. Of two labels whose names become equal, the first one is kept: a
/// series with both would make Prometheus refuse the page.
pub(super) fn prometheus_labels(prefix: &str, labels: Labels) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    for (key, value) in labels {
        let is_allowed = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let name = key.chars().map(|character| if is_allowed(character) { character } else { '_' });
        let name: String = prefix.chars().chain(name).collect();
        named.entry(name).or_insert(value);
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_characters_that_prometheus_allows() {
        let labels = [("app.io/tier-1", "a"), ("app_io_tier_1", "b"), ("1", "c")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let named = prometheus_labels("label_", labels);
        let expected = [("label_1", "c"), ("label_app_io_tier_1", "a")];
        assert!(named.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected));
    }
}
