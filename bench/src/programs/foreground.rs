//! Programs that run to their end.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// Number of lines of a failed program's output that are shown.
const TAIL_LINES: usize = 60;

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
///
/// The program cannot be started, or fails; the error contains the end of its output.
pub(crate) fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = output.status;
    ensure!(
        status.success(),
        "{command:?} failed ({status}):\n{}",
        tail(&(stdout + &String::from_utf8_lossy(&output.stderr)))
    );
    Ok(stdout)
}

/// Runs `command` without input and output, and checks that it succeeds.
///
/// # Errors
///
/// The program cannot be started, or fails.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

/// Returns the last lines of `text`.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_failed_program_contains_its_output() {
        let error = output_of(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("exit status: 3") && text.contains("out\nerr"), "{text}");
    }

    #[test]
    fn a_program_that_fails_does_not_count_as_a_success() {
        let error = succeed(&mut Command::new("false")).unwrap_err().to_string();
        assert!(error.contains("\"false\" failed"), "{error}");
    }
}
