//! Candidates, in the form that the script of each shell reads.
//!
//! Values can come from guests: the name of a file can contain `$(…)` or `;`. bash inserts candidates as they are, so
//! they are quoted here; zsh and fish quote them when they insert them. No candidate contains a control character.

use super::candidates::WordCandidate;
use super::typed_line::TypedLine;
use crate::cli::CompletionShell;

/// Characters after which a shell must not add a space, because the word continues.
const OPEN_ENDS: [char; 5] = ['/', ':', '=', ',', '@'];

/// Returns one line for each candidate.
pub(super) fn text(line: &TypedLine, candidates: Vec<WordCandidate>) -> String {
    let lines = candidates.iter().filter_map(|candidate| match line.shell {
        CompletionShell::Bash => for_bash(line, &candidate.value),
        CompletionShell::Zsh => Some(for_zsh(candidate)),
        CompletionShell::Fish => Some(format!("{}\t{}", candidate.value, candidate.description)),
    });
    lines.map(|line| line + "\n").collect()
}

/// Returns the text that bash inserts in place of the end of the typed word. Inside quotation marks, a value with a
/// character that has a meaning there is left out.
fn for_bash(line: &TypedLine, value: &str) -> Option<String> {
    let replaced = value.strip_prefix(&line.kept)?;
    match line.quote {
        None => Some(with_backslashes(replaced)),
        Some('\'') => (!replaced.contains('\'')).then(|| replaced.to_owned()),
        Some(_) => (!replaced.contains(['"', '\\', '$', '`', '!'])).then(|| replaced.to_owned()),
    }
}

/// Puts a backslash before each character that could have a meaning for bash.
fn with_backslashes(text: &str) -> String {
    let is_plain = |character: char| {
        character.is_alphanumeric() || "-_./:=,@%+^".contains(character) || !character.is_ascii()
    };
    text.chars().fold(String::new(), |mut quoted, character| {
        if !is_plain(character) {
            quoted.push('\\');
        }
        quoted.push(character);
        quoted
    })
}

/// Returns `+` (a space follows the word) or `-`, and the value and its description in the form of `_describe`.
fn for_zsh(candidate: &WordCandidate) -> String {
    let WordCandidate { value, description } = candidate;
    let end = if value.ends_with(OPEN_ENDS) { '-' } else { '+' };
    let value = value.replace('\\', r"\\").replace(':', r"\:");
    match description.as_str() {
        "" => format!("{end}{value}"),
        _ => format!("{end}{value}:{}", description.replace('\\', r"\\")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn reply(shell: CompletionShell, arguments: &[&str], values: &[(&str, &str)]) -> String {
        let arguments = arguments.iter().map(OsString::from).collect();
        let line = TypedLine::new(shell, arguments).unwrap();
        let candidates = values.iter().map(|(value, description)| WordCandidate {
            value: (*value).to_owned(),
            description: (*description).to_owned(),
        });
        text(&line, candidates.collect())
    }

    #[test]
    fn bash_gets_the_end_of_the_word_with_backslashes() {
        let bash = |line: &str, replaced: &str, value: &str| {
            reply(CompletionShell::Bash, &[line, "minionsctl", replaced], &[(value, "")])
        };
        let line = "minionsctl cp web-1:/t";
        assert_eq!(bash(line, "/t", "web-1:/tmp/"), "/tmp/\n");
        assert_eq!(bash(line, "/t", "web-1:/t a$(x);`y`&*"), "/t\\ a\\$\\(x\\)\\;\\`y\\`\\&\\*\n");
        assert_eq!(bash(line, "/t", "other:/tmp"), "");
        let quoted = "minionsctl cp \"web-1:/t";
        assert_eq!(bash(quoted, "web-1:/t", "web-1:/t a"), "web-1:/t a\n");
        for value in ["web-1:/t$(x)", "web-1:/t`x`", "web-1:/t\"", "web-1:/t!x", "web-1:/t\\"] {
            assert_eq!(bash(quoted, "web-1:/t", value), "", "{value}");
        }
        assert_eq!(bash("minionsctl cp 'web-1:/t", "web-1:/t", "web-1:/t$(x)"), "web-1:/t$(x)\n");
        assert_eq!(bash("minionsctl cp 'web-1:/t", "web-1:/t", "web-1:/t'"), "");
    }

    #[test]
    fn zsh_gets_values_for_describe_and_whether_a_space_follows() {
        let values = [("web-1:/tmp/", ""), ("web-1", "ready: 5 s"), (r"a\b", "")];
        let text = reply(CompletionShell::Zsh, &["minionsctl", ""], &values);
        assert_eq!(text, "-web-1\\:/tmp/\n+web-1:ready: 5 s\n+a\\\\b\n");
    }

    #[test]
    fn fish_gets_values_and_descriptions() {
        let text = reply(CompletionShell::Fish, &["minionsctl", ""], &[("web 1", "ready")]);
        assert_eq!(text, "web 1\tready\n");
    }
}
