//! The committed API description, which the daemon writes from the routes that it serves.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};

use crate::{command, progress, workspace::Workspace};

/// What to do with the generated description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Put it into its file.
    Write,
    /// Compare it with the file.
    Check,
}

/// Generates the description and writes or compares it.
pub(crate) fn run(workspace: &Workspace, mode: Mode) -> anyhow::Result<()> {
    let path = workspace.root().join("openapi/minions.json");
    let new = generate(workspace)?;
    match mode {
        Mode::Write => write(&path, &new),
        Mode::Check => {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            if let Some(difference) = first_difference(&committed, &new) {
                bail!(
                    "openapi/minions.json is out of date: {difference}; run `cargo xtask openapi`"
                );
            }
            Ok(())
        }
    }
}

fn write(path: &PathBuf, text: &str) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    progress::line("wrote openapi/minions.json");
    Ok(())
}

fn generate(workspace: &Workspace) -> anyhow::Result<String> {
    let mut daemon = workspace.cargo("run");
    daemon.args(["--quiet", "--package", "minionsd", "--", "openapi"]);
    pretty(&command::run(&mut daemon)?).context("minionsd openapi did not print JSON")
}

/// Indents without changing the order of the keys.
fn pretty(json: &str) -> anyhow::Result<String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let mut out = Vec::new();
    serde_transcode::transcode(&mut reader, &mut serde_json::Serializer::pretty(&mut out))?;
    reader.end()?;
    out.push(b'\n');
    Ok(String::from_utf8(out)?)
}

/// Names the first line that is not the same.
fn first_difference(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    if old.is_empty() {
        return Some("it is missing".to_owned());
    }
    let pairs = old.lines().zip(new.lines());
    let (number, (old, new)) = pairs
        .enumerate()
        .find(|(_, (old, new))| old != new)
        .unwrap_or((old.lines().count().min(new.lines().count()), ("the end", "more")));
    Some(format!("line {} has `{}`, the daemon says `{}`", number + 1, old.trim(), new.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_the_file_ends_with_a_newline() {
        let text = pretty(r#"{"openapi":"3.1.0","info":{"title":"x"}}"#).unwrap();
        let expected =
            "{\n  \"openapi\": \"3.1.0\",\n  \"info\": {\n    \"title\": \"x\"\n  }\n}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        assert!(pretty("warning: x").is_err());
        assert!(pretty("{} {}").is_err());
    }

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert!(first_difference("a\nb\n", "a\nc\n").unwrap().contains("line 2 has `b`"));
        assert!(first_difference("", "a\n").unwrap().contains("missing"));
        assert!(first_difference("a\n", "a\nb\n").is_some());
    }
}
