//! Execution of one command of the tour.

use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{command, progress};

/// Prints the command line, runs it, prints its output, and fails if it did not work.
pub(crate) fn run(mut command: Command) -> anyhow::Result<()> {
    let line = command::line(&command);
    progress::line(format!("$ {line}"));
    let output = command::run(bounded(&mut command))?;
    progress::line(format!("{}\n", output.trim_end()));
    judge(&output).with_context(|| format!("`{line}`"))
}

/// Wraps the command in coreutils' `timeout`: the tour must end even if a part hangs.
fn bounded(command: &mut Command) -> &mut Command {
    let (program, args) = (command.get_program().to_owned(), command.get_args());
    let args: Vec<_> = args.map(ToOwned::to_owned).collect();
    *command = Command::new("timeout");
    command.args(["--kill-after=5", "60"]).arg(program).args(args)
}

/// Checks the reply: JSON may report a failure although the program that printed it succeeded.
fn judge(output: &str) -> anyhow::Result<()> {
    let Ok(reply) = serde_json::from_str::<Value>(output) else { return Ok(()) };
    match reply.get("status").and_then(Value::as_str) {
        None | Some("ok") => {}
        Some(status) => bail!("the reply's status is {status:?}"),
    }
    match reply.get("exit_code") {
        None => Ok(()),
        Some(code) if code == 0 => Ok(()),
        Some(code) => bail!("the command in the guest ended with {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_reply_that_reports_a_failure_fails_the_tour() {
        assert!(judge(r#"{"status":"error","message":"no"}"#).is_err());
        assert!(judge(r#"{"status":"ok","exit_code":1}"#).is_err());
        assert!(judge(r#"{"status":"ok","exit_code":null}"#).is_err());
    }

    #[test]
    fn a_good_reply_and_plain_text_pass() {
        for output in [r#"{"status":"ok","exit_code":0}"#, r#"{"state":"ready"}"#, "2 received", ""]
        {
            judge(output).unwrap();
        }
    }
}
