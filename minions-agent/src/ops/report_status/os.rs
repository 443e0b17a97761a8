//! The distribution, from `os-release(5)`.

use minions_proto::message::Os;
use std::collections::HashMap;
use std::fs;

/// In the order that `os-release(5)` gives.
const FILES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// `None` without such a file: a bare initramfs has none.
pub(super) fn read() -> Option<Os> {
    parse(&FILES.iter().find_map(|file| fs::read_to_string(file).ok())?)
}

fn parse(text: &str) -> Option<Os> {
    let mut fields: HashMap<&str, String> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), unquoted(value.trim())))
        .collect();
    let mut take = |name| fields.remove(name).filter(|value| !value.is_empty());
    // The defaults are the manual page's.
    let id = take("ID").unwrap_or_else(|| "linux".to_owned());
    let pretty_name =
        take("PRETTY_NAME").or_else(|| take("NAME")).unwrap_or_else(|| "Linux".to_owned());
    Some(Os { id, version_id: take("VERSION_ID"), pretty_name })
}

/// A shell's quotes, as far as `os-release(5)` allows them: around the whole value, with a backslash
/// before what would be special between double quotes.
fn unquoted(value: &str) -> String {
    let between = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(literal) = between('\'') {
        return literal.to_owned();
    }
    let mut characters = between('"').unwrap_or(value).chars();
    let mut plain = String::new();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_comments_are_a_shells() {
        let os = parse(
            "# a\nNAME=\"Debian\"\nID=debian\nVERSION_ID='12'\nPRETTY_NAME=\"A \\\"b\\\" $\"\n",
        );
        let os = os.unwrap();
        assert_eq!((os.id.as_str(), os.version_id.as_deref()), ("debian", Some("12")));
        assert_eq!(os.pretty_name, "A \"b\" $");
    }

    #[test]
    fn what_is_missing_has_the_manual_pages_default() {
        let os = parse("").unwrap();
        assert_eq!(
            (os.id.as_str(), os.pretty_name.as_str(), os.version_id),
            ("linux", "Linux", None)
        );
    }
}
