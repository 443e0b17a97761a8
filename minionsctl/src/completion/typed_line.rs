//! Words that are typed, as each shell passes them.

use crate::cli::CompletionShell;
use std::ffi::OsString;

/// Command line up to the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TypedLine {
    pub(super) shell: CompletionShell,
    /// Words without quotes. The last one is being typed.
    words: Vec<OsString>,
    /// Last word.
    typed: String,
    /// Beginning of the last word that the shell keeps, without quotes: bash replaces only the text after the last
    /// character of `COMP_WORDBREAKS`, such as a colon.
    pub(super) kept: String,
    /// Quotation mark that is open at the cursor.
    pub(super) quote: Option<char>,
}

/// Word of a command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ShellWord {
    /// Word without quotes.
    text: String,
    /// Word as typed.
    raw: String,
    /// Quotation mark that is open at its end.
    quote: Option<char>,
}

impl TypedLine {
    /// Parses the arguments that the script of the shell passes. Returns `None` if they contain no word to complete.
    pub(super) fn new(shell: CompletionShell, arguments: Vec<OsString>) -> Option<Self> {
        match shell {
            CompletionShell::Bash => Self::of_bash(arguments),
            CompletionShell::Zsh | CompletionShell::Fish => {
                let (last, before) = arguments.split_last()?;
                if before.is_empty() {
                    return None;
                }
                // fish passes the last word as typed; zsh has removed the quotes.
                let typed = match shell {
                    CompletionShell::Fish => {
                        last_word(last.to_str()?).map(|word| word.text).unwrap_or_default()
                    }
                    _ => last.to_str()?.to_owned(),
                };
                let words = before.iter().cloned().chain([OsString::from(&typed)]).collect();
                Some(Self { shell, words, typed, kept: String::new(), quote: None })
            }
        }
    }

    /// Parses the arguments of bash: the line up to the cursor, the word of the command, and the text that bash will
    /// replace. The words that bash itself offers are split at colons and equals signs.
    fn of_bash(arguments: Vec<OsString>) -> Option<Self> {
        let [line, command, replaced] = <[OsString; 3]>::try_from(arguments).ok()?;
        let (line, command, replaced) = (line.to_str()?, command.to_str()?, replaced.to_str()?);
        let words = split(line)?;
        // Assignments can precede the command.
        let first = words.iter().position(|word| word.raw == command || word.text == command)?;
        let words = &words[first..];
        let (last, before) = words.split_last()?;
        if before.is_empty() {
            return None;
        }
        let kept = match last.raw.strip_suffix(replaced) {
            Some(raw) => last_word(raw).map(|word| word.text).unwrap_or_default(),
            None => last.text.strip_suffix(replaced)?.to_owned(),
        };
        Some(Self {
            shell: CompletionShell::Bash,
            words: words.iter().map(|word| OsString::from(&word.text)).collect(),
            typed: last.text.clone(),
            kept,
            quote: last.quote,
        })
    }

    /// Returns the words. The last one is being typed.
    pub(super) fn words(&self) -> &[OsString] {
        &self.words
    }

    /// Returns the word that is being typed.
    pub(super) fn typed(&self) -> &str {
        &self.typed
    }
}

/// Returns the last word of a line.
fn last_word(line: &str) -> Option<ShellWord> {
    split(line)?.pop()
}

/// Splits the line at spaces as a shell does, and removes quotes. Starts again after an operator between commands, and
/// leaves out redirections. The last word is empty if the line ends with a space. Returns `None` if the last word is
/// the file of a redirection. Variables and substitutions are not expanded.
fn split(line: &str) -> Option<Vec<ShellWord>> {
    let mut words = Vec::new();
    let mut word: Option<ShellWord> = None;
    let mut is_redirected = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let quote = word.as_ref().and_then(|word| word.quote);
        match (quote, character) {
            (None, ' ' | '\t') => {
                words.extend(word.take().filter(|_| !std::mem::take(&mut is_redirected)));
            }
            (None, ';' | '|' | '&' | '(' | '\n') => {
                words.clear();
                word = None;
                is_redirected = false;
            }
            (None, '<' | '>') => {
                // A number before the sign is the descriptor.
                let is_number = |word: &ShellWord| word.raw.bytes().all(|b| b.is_ascii_digit());
                words.extend(word.take().filter(|word| !is_redirected && !is_number(word)));
                is_redirected = true;
            }
            _ => {
                let word = word.get_or_insert_default();
                word.raw.push(character);
                match (quote, character) {
                    (None, '\'' | '"') => word.quote = Some(character),
                    (Some(open), _) if open == character => word.quote = None,
                    (None, '\\') => {
                        if let Some(next) = characters.next() {
                            word.raw.push(next);
                            word.text.push(next);
                        }
                    }
                    (Some('"'), '\\') => match characters.next() {
                        Some(next) => {
                            word.raw.push(next);
                            if !matches!(next, '"' | '\\' | '$' | '`') {
                                word.text.push('\\');
                            }
                            word.text.push(next);
                        }
                        None => word.text.push('\\'),
                    },
                    _ => word.text.push(character),
                }
            }
        }
    }
    if is_redirected {
        return None;
    }
    words.push(word.unwrap_or_default());
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bash(line: &str, replaced: &str) -> Option<TypedLine> {
        let arguments = [line, "minionsctl", replaced].map(OsString::from).to_vec();
        TypedLine::new(CompletionShell::Bash, arguments)
    }

    #[test]
    fn bash_words_are_split_at_spaces_only() {
        for (line, replaced, words, kept) in [
            ("minionsctl ls ", "", &["minionsctl", "ls", ""][..], ""),
            ("minionsctl get we", "we", &["minionsctl", "get", "we"], ""),
            ("minionsctl cp web-1:/et", "/et", &["minionsctl", "cp", "web-1:/et"], "web-1:"),
            ("minionsctl cp web-1:", "", &["minionsctl", "cp", "web-1:"], "web-1:"),
            (
                r"minionsctl cp web-1:/My\ D",
                r"/My\ D",
                &["minionsctl", "cp", "web-1:/My D"],
                "web-1:",
            ),
            (
                r"minionsctl cp web-1:/My\ D",
                "/My D",
                &["minionsctl", "cp", "web-1:/My D"],
                "web-1:",
            ),
            ("minionsctl cp 'web-1:/My D", "web-1:/My D", &["minionsctl", "cp", "web-1:/My D"], ""),
            ("A=1 minionsctl ls -l app=w", "w", &["minionsctl", "ls", "-l", "app=w"], "app="),
            ("true; minionsctl ls w", "w", &["minionsctl", "ls", "w"], ""),
            ("minionsctl ls 2>/dev/null w", "w", &["minionsctl", "ls", "w"], ""),
        ] {
            let typed = bash(line, replaced).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(typed.words(), words, "{line}");
            assert_eq!(typed.kept, kept, "{line}");
        }
    }

    #[test]
    fn a_line_without_a_word_to_complete_is_refused() {
        for (line, replaced) in [
            ("minionsct", "minionsct"),
            ("minionsctl", "minionsctl"),
            ("other ls ", ""),
            ("minionsctl logs a b > /tm", "/tm"),
            ("minionsctl logs a b >", ""),
            ("minionsctl ls web", "other"),
        ] {
            assert_eq!(bash(line, replaced), None, "{line}");
        }
        assert_eq!(TypedLine::new(CompletionShell::Zsh, vec!["minionsctl".into()]), None);
        assert_eq!(TypedLine::new(CompletionShell::Bash, Vec::new()), None);
    }

    #[test]
    fn an_open_quotation_mark_is_reported() {
        assert_eq!(bash("minionsctl cp \"a b", "a b").unwrap().quote, Some('"'));
        assert_eq!(bash("minionsctl cp 'it", "it").unwrap().quote, Some('\''));
        assert_eq!(bash("minionsctl cp 'it' ", "").unwrap().quote, None);
    }

    #[test]
    fn the_last_word_of_fish_loses_its_backslashes() {
        let arguments = ["minionsctl", "cp", r"web-1:/My\ D"].map(OsString::from).to_vec();
        let typed = TypedLine::new(CompletionShell::Fish, arguments).unwrap();
        assert_eq!(typed.typed(), "web-1:/My D");
        let arguments = ["minionsctl", "cp", ""].map(OsString::from).to_vec();
        assert_eq!(TypedLine::new(CompletionShell::Fish, arguments).unwrap().typed(), "");
    }
}
