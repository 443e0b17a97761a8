//! The distribution, from `os-release(5)`.

use minions_proto::message::Os;
use std::collections::HashMap;
use std::fs;

/// Files in the order of precedence of `os-release(5)`.
const FILES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Reads the distribution; `None` without such a file, as in a minimal initramfs.
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
    // Defaults from the manual page.
    let id = take("ID").unwrap_or_else(|| "linux".to_owned());
    let pretty_name =
        take("PRETTY_NAME").or_else(|| take("NAME")).unwrap_or_else(|| "Linux".to_owned());
    Some(Os { id, version_id: take("VERSION_ID"), pretty_name })
}

/// Removes shell quotes, as far as `os-release(5)` allows them: around the whole value, with a backslash
/// before special characters.
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
    fn shell_quotes_and_comments_are_understood() {
        let os = parse(
            "# a\nNAME=\"Debian\"\nID=debian\nVERSION_ID='12'\nPRETTY_NAME=\"A \\\"b\\\" $\"\n",
        );
        let os = os.unwrap();
        assert_eq!((os.id.as_str(), os.version_id.as_deref()), ("debian", Some("12")));
        assert_eq!(os.pretty_name, "A \"b\" $");
    }

    #[test]
    fn missing_fields_have_the_defaults_of_the_manual_page() {
        let os = parse("").unwrap();
        assert_eq!(
            (os.id.as_str(), os.pretty_name.as_str(), os.version_id),
            ("linux", "Linux", None)
        );
    }
}
