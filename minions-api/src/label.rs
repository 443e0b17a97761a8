//! Labels of VMs, and selectors of labels.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Labels of a VM: values by key.
pub type Labels = BTreeMap<String, String>;

/// Largest number of labels of a VM or declaration.
pub const MAX_LABELS: usize = 32;

/// Longest key or value, in bytes.
const MAX_LEN: usize = 63;

/// Largest number of requirements in a selector.
const MAX_REQUIREMENTS: usize = 32;

/// Condition for the labels of a VM, as in `app=web,env!=prod,tier,!legacy`. All its requirements must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector(Vec<LabelRequirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelRequirement {
    Equals(String, String),
    Differs(String, String),
    Exists(String),
    Missing(String),
}

/// Text that is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a label requirement: must be KEY=VALUE, KEY!=VALUE, KEY or !KEY, at most \
     {MAX_REQUIREMENTS} of them, separated by commas"
)]
pub struct InvalidSelector(String);

impl LabelSelector {
    /// Reports whether the labels satisfy all requirements. A missing label differs from every value.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_with(|key| labels.get(key))
    }

    /// Reports whether labels satisfy all requirements. `label` returns the value of a key.
    #[must_use]
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            LabelRequirement::Equals(key, value) => label(key) == Some(value),
            LabelRequirement::Differs(key, value) => label(key) != Some(value),
            LabelRequirement::Exists(key) => label(key).is_some(),
            LabelRequirement::Missing(key) => label(key).is_none(),
        })
    }
}

impl FromStr for LabelSelector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.split(',').count() > MAX_REQUIREMENTS {
            return Err(InvalidSelector(text.chars().take(64).collect()));
        }
        text.split(',').map(requirement).collect::<Result<_, _>>().map(Self)
    }
}

fn requirement(text: &str) -> Result<LabelRequirement, InvalidSelector> {
    let text = text.trim();
    let invalid = || InvalidSelector(text.to_owned());
    let pair = |key: &str, value: &str| {
        let (key, value) = (key.trim(), value.trim());
        let is_valid = check_key(key).is_ok() && check_value(value).is_ok();
        is_valid.then(|| (key.to_owned(), value.to_owned())).ok_or_else(invalid)
    };
    if let Some((key, value)) = text.split_once("!=") {
        return pair(key, value).map(|(key, value)| LabelRequirement::Differs(key, value));
    }
    if let Some((key, value)) = text.split_once('=') {
        return pair(key, value).map(|(key, value)| LabelRequirement::Equals(key, value));
    }
    match text.strip_prefix('!') {
        Some(key) => pair(key, "").map(|(key, _)| LabelRequirement::Missing(key)),
        None => pair(text, "").map(|(key, _)| LabelRequirement::Exists(key)),
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            match requirement {
                LabelRequirement::Equals(key, value) => write!(f, "{key}={value}")?,
                LabelRequirement::Differs(key, value) => write!(f, "{key}!={value}")?,
                LabelRequirement::Exists(key) => f.write_str(key)?,
                LabelRequirement::Missing(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// Checks the key of a label.
///
/// # Errors
///
/// The rule for keys, as the rest of a sentence.
pub fn check_key(key: &str) -> Result<(), &'static str> {
    let starts_well = key.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    if starts_well && key.len() <= MAX_LEN && key.bytes().all(valid) {
        return Ok(());
    }
    Err("a label's key has 1 to 63 characters of A-Z a-z 0-9 . _ / -, the first a letter or digit")
}

/// Checks the value of a label.
///
/// # Errors
///
/// The rule for values, as the rest of a sentence.
pub fn check_value(value: &str) -> Result<(), &'static str> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if value.len() <= MAX_LEN && value.bytes().all(valid) {
        return Ok(());
    }
    Err("a label's value has at most 63 characters of A-Z a-z 0-9 . _ -")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str) -> bool {
        let labels = [("app", "web"), ("env", "test"), ("empty", "")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        selector.parse::<LabelSelector>().unwrap().matches(&labels)
    }

    #[test]
    fn a_selector_requires_all_of_its_parts() {
        for selector in
            ["app=web", "app=web,env!=prod", "app", "!legacy", "tier!=db", "empty=", " app = web "]
        {
            assert!(matches(selector), "{selector}");
        }
        for selector in ["app=db", "app=web,env=prod", "legacy", "!app", "env!=test", "app="] {
            assert!(!matches(selector), "{selector}");
        }
    }

    #[test]
    fn a_text_that_is_no_selector_is_refused_with_the_part() {
        for (text, part) in
            [("", ""), ("app=web,", ""), ("a b", "a b"), ("=x", "=x"), ("a=b=c", "a=b=c")]
        {
            let error = text.parse::<LabelSelector>().unwrap_err();
            assert_eq!(error, InvalidSelector(part.into()), "{text:?}");
        }
        assert!("a,".repeat(40).parse::<LabelSelector>().is_err());
    }

    #[test]
    fn a_selector_shows_as_it_was_written() {
        for text in ["app=web,env!=prod,tier,!legacy", "a/b.c-d=1_2"] {
            assert_eq!(text.parse::<LabelSelector>().unwrap().to_string(), text);
        }
    }
}
