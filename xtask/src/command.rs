//! Runs other programs without showing their output, unless they fail.

use std::{
    env, io,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

/// Number of last lines of a failed command's output that are shown.
const TAIL_LINES: usize = 60;

/// Failure to start a command, or a non-zero exit status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot start `{line}`")]
    Start { line: String, source: io::Error },
    #[error("`{line}` failed ({status}):\n{output}")]
    Failed { line: String, status: ExitStatus, output: String },
}

/// Runs `command` to its end and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, CommandError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CommandError::Start { line: line(command), source })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let output_text = stdout + &String::from_utf8_lossy(&output.stderr);
    Err(CommandError::Failed {
        line: line(command),
        status: output.status,
        output: tail(&output_text),
    })
}

/// Formats the command as it is typed in a shell.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// Returns a command with the `cargo` that started this program, so that the toolchain stays the same.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Reports whether a program is in `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| is_file(&dir.join(program)))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Puts single quotes around a word that contains characters with a meaning for the shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Returns the last [`TAIL_LINES`] lines of `text`.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_quoted_for_the_shell() {
        let mut command = Command::new("curl");
        command.args(["-d", r#"{"a":"it's"}"#, "http://127.0.0.1:7070/vms"]);
        let expected = r#"curl -d '{"a":"it'\''s"}' http://127.0.0.1:7070/vms"#;
        assert_eq!(line(&command), expected);
    }

    #[test]
    fn the_error_of_a_failed_command_contains_its_output() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("exit status: 3") && text.contains("out\nerr"), "{text}");
    }
}
