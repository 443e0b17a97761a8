//! Running other programs quietly: what they say is shown only when they fail.

use std::{
    env, io,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

/// How much of a failed command's output is shown, in lines.
const TAIL_LINES: usize = 60;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot start `{line}`")]
    Start { line: String, source: io::Error },
    #[error("`{line}` failed ({status}):\n{output}")]
    Failed { line: String, status: ExitStatus, output: String },
}

/// Runs `command` to its end and gives its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, CommandError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CommandError::Start { line: line(command), source })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let said = stdout + &String::from_utf8_lossy(&output.stderr);
    Err(CommandError::Failed { line: line(command), status: output.status, output: tail(&said) })
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// The cargo that called us, so that the toolchain stays the same.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether a program is in `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| is_file(&dir.join(program)))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Single quotes around a word that the shell would not take as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The last lines of `text`.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_so_that_a_shell_would_take_it() {
        let mut command = Command::new("curl");
        command.args(["-d", r#"{"a":"it's"}"#, "http://127.0.0.1:7070/vms"]);
        let expected = r#"curl -d '{"a":"it'\''s"}' http://127.0.0.1:7070/vms"#;
        assert_eq!(line(&command), expected);
    }

    #[test]
    fn a_failed_command_tells_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("exit status: 3") && text.contains("out\nerr"), "{text}");
    }
}
