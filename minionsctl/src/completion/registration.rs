//! Scripts that make a shell run minionsctl at Tab.

use super::VARIABLE;
use crate::cli::CompletionShell;
use std::env;
use std::path::{Path, absolute};

/// `COMP_WORDS` is not passed on: it is split at `COMP_WORDBREAKS`, which has the colon. `mapfile` does not expand what
/// it reads, as an unquoted substitution would.
const BASH: &str = r#"_minionsctl() {
    mapfile -t COMPREPLY < <(
        VARIABLE=bash PROGRAM -- "${COMP_LINE:0:COMP_POINT}" "$1" "$2" 2>/dev/null
    )
    if [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *[/:=,@] ]]; then
        compopt -o nospace
    fi
}
complete -o nosort -F _minionsctl minionsctl
"#;

/// `PREFIX` is the typed word up to the cursor. The file works in a directory of `fpath`, and with `source`.
const ZSH: &str = r#"#compdef minionsctl
_minionsctl() {
    local line
    local -a lines finished continued
    lines=("${(@f)$(
        VARIABLE=zsh PROGRAM -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null
    )}")
    for line in $lines; do
        if [[ $line == -* ]]; then
            continued+=("${line#-}")
        else
            finished+=("${line#+}")
        fi
    done
    (( $#finished )) && _describe 'minionsctl' finished
    (( $#continued )) && _describe 'minionsctl' continued -S ''
}
if [[ $funcstack[1] == _minionsctl ]]; then
    _minionsctl "$@"
else
    compdef _minionsctl minionsctl
fi
"#;

const FISH: &str = r#"function __minionsctl_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    VARIABLE=fish PROGRAM -- $words (commandline --current-token --cut-at-cursor) 2>/dev/null
end
complete --command minionsctl --no-files --keep-order --arguments '(__minionsctl_complete)'
"#;

/// Returns the script for `shell`.
pub(crate) fn script(shell: CompletionShell) -> String {
    let script = match shell {
        CompletionShell::Bash => BASH,
        CompletionShell::Zsh => ZSH,
        CompletionShell::Fish => FISH,
    };
    let program = env::args_os().next().unwrap_or_default();
    script.replace("PROGRAM", &program_word(Path::new(&program))).replace("VARIABLE", VARIABLE)
}

/// Returns the word with which a shell finds this program: its name if it was found in `PATH`, otherwise its path.
fn program_word(program: &Path) -> String {
    if program.components().count() > 1
        && let Ok(path) = absolute(program)
        && let Some(path) = path.to_str()
    {
        return quoted(path);
    }
    "minionsctl".to_owned()
}

/// Quotes a word for bash, zsh and fish.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+,@".contains(c);
    if word.chars().all(is_plain) {
        return word.to_owned();
    }
    // A backslash in single quotes is itself in bash and zsh, but can be an escape in fish: it gets quotes of its own.
    let quoted = word.split('\'').map(|part| part.split('\\').collect::<Vec<_>>().join(r#"'\\'"#));
    format!("'{}'", quoted.collect::<Vec<_>>().join(r#"'"'"'"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_its_name_or_its_absolute_path() {
        assert_eq!(program_word(Path::new("minionsctl")), "minionsctl");
        assert_eq!(program_word(Path::new("/opt/x/minionsctl")), "/opt/x/minionsctl");
        assert_eq!(program_word(Path::new("/a b/it's/m")), r#"'/a b/it'"'"'s/m'"#);
        assert_eq!(program_word(Path::new(r"/a\b/m")), r"'/a'\\'b/m'");
        assert!(program_word(Path::new("./minionsctl")).starts_with('/'));
    }

    #[test]
    fn scripts_have_no_placeholder_left() {
        for shell in [CompletionShell::Bash, CompletionShell::Zsh, CompletionShell::Fish] {
            let script = script(shell);
            assert!(script.contains("MINIONSCTL_COMPLETE="), "{script}");
            assert!(!script.contains("VARIABLE") && !script.contains("PROGRAM"), "{script}");
        }
    }
}
