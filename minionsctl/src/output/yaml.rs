//! YAML for `-o yaml`: block style, with all strings in double quotes and the members of objects sorted by name.
//!
//! Not the work of a library, because the escapes of JSON must also cover the characters that a terminal acts on: no
//! library for YAML has such a setting.

use super::active_character::is_active;
use crate::failure::Failure;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

/// Returns the value as a YAML document without its `---`.
pub(super) fn text(value: &impl Serialize) -> Result<String, Failure> {
    let value = serde_json::to_value(value).map_err(|error| Failure::Output(error.into()))?;
    let mut text = String::new();
    match &value {
        Value::Array(_) | Value::Object(_) if !is_empty(&value) => block(&mut text, &value, 0),
        value => text = scalar(value) + "\n",
    }
    Ok(text)
}

/// Appends a list or an object that is not empty. The cursor is at the indentation of its first entry.
fn block(text: &mut String, value: &Value, indent: usize) {
    let mut first = true;
    let mut line = |text: &mut String| {
        if !std::mem::take(&mut first) {
            text.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match value {
        Value::Array(items) => {
            for item in items {
                line(text);
                text.push_str("- ");
                if is_empty(item) {
                    text.push_str(&(scalar(item) + "\n"));
                } else {
                    block(text, item, indent + 2);
                }
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                line(text);
                text.push_str(&(self::key(key) + ":"));
                if is_empty(member) {
                    text.push_str(&format!(" {}\n", scalar(member)));
                } else {
                    text.push('\n');
                    text.extend(std::iter::repeat_n(' ', indent + 2));
                    block(text, member, indent + 2);
                }
            }
        }
        scalar_value => text.push_str(&(scalar(scalar_value) + "\n")),
    }
}

/// Reports whether the value fits on the line of its key: a scalar, or an empty list or object.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Formats a scalar, or an empty list or object.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => quoted(string),
        other => other.to_string(),
    }
}

/// Formats a key: without quotes if it is an identifier that no version of YAML takes for another type.
fn key(key: &str) -> String {
    let is_plain = key.len() > 3
        && key.starts_with(|first: char| first.is_ascii_lowercase())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !["true", "false", "null"].contains(&key);
    let is_short =
        ["id", "vm", "vms", "at", "to", "pid", "tty", "mtu", "mac", "dns", "cwd"].contains(&key);
    if is_plain || is_short { key.to_owned() } else { quoted(key) }
}

/// Formats a double-quoted scalar. Control characters and invisible characters are escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Writing to a string cannot fail.
            // YAML excludes the last two, and parsers refuse the whole document.
            active if is_active(active) || matches!(active, '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(active));
            }
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn characters_that_yaml_excludes_are_escaped() {
        for excluded in ['\u{fffe}', '\u{ffff}', '\u{7}', '\u{9b}'] {
            let document = text(&json!({ "hostname": format!("a{excluded}b") })).unwrap();
            assert!(document.contains("\\U0000"), "{document:?}");
            assert!(!document.contains(excluded), "{document:?}");
        }
    }

    #[test]
    fn lists_and_objects_are_indented_blocks() {
        let value = json!({
            "vms": [{"name": "web-1", "labels": {}, "pool": {"idle": 1}}, {"name": "no\n", "tags": []}],
            "true": null,
            "y": 1.5,
            "rows": [[1, 2], []],
        });
        let expected = r#"rows:
  - - 1
    - 2
  - []
"true": null
vms:
  - labels: {}
    name: "web-1"
    pool:
      idle: 1
  - name: "no\n"
    tags: []
"y": 1.5
"#;
        assert_eq!(text(&value).unwrap(), expected);
        assert_eq!(text(&json!([])).unwrap(), "[]\n");
        assert_eq!(text(&json!("a")).unwrap(), "\"a\"\n");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("[a-zA-Z~0-9.]{0,6}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_text_parses_to_the_same_value_and_has_no_active_characters(value in any_json()) {
            let text = text(&value).unwrap();
            prop_assert!(!text.chars().any(|c| c != '\n' && is_active(c)), "{text:?}");
            let parsed: Value = serde_saphyr::from_str(&text).map_err(|error| {
                TestCaseError::fail(format!("{text}: {error}"))
            })?;
            prop_assert_eq!(parsed, value);
        }
    }
}
