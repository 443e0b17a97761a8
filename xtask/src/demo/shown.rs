//! One command of the tour.

use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{command, progress};

/// Prints the command line, runs it, prints what it said, and fails if it did not work.
pub(crate) fn run(mut command: Command) -> anyhow::Result<()> {
    let line = command::line(&command);
    progress::line(format!("$ {line}"));
    let said = command::run(bounded(&mut command))?;
    progress::line(format!("{}\n", said.trim_end()));
    judge(&said).with_context(|| format!("`{line}`"))
}

/// The same command under coreutils' `timeout`: the tour must end, whatever the parts do.
fn bounded(command: &mut Command) -> &mut Command {
    let (program, args) = (command.get_program().to_owned(), command.get_args());
    let args: Vec<_> = args.map(ToOwned::to_owned).collect();
    *command = Command::new("timeout");
    command.args(["--kill-after=5", "60"]).arg(program).args(args)
}

/// A reply in JSON may say that it failed although the program that printed it did not.
fn judge(said: &str) -> anyhow::Result<()> {
    let Ok(reply) = serde_json::from_str::<Value>(said) else { return Ok(()) };
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
    fn a_reply_that_says_it_failed_fails_the_tour() {
        assert!(judge(r#"{"status":"error","message":"no"}"#).is_err());
        assert!(judge(r#"{"status":"ok","exit_code":1}"#).is_err());
        assert!(judge(r#"{"status":"ok","exit_code":null}"#).is_err());
    }

    #[test]
    fn a_good_reply_and_plain_text_pass() {
        for said in [r#"{"status":"ok","exit_code":0}"#, r#"{"state":"ready"}"#, "2 received", ""] {
            judge(said).unwrap();
        }
    }
}
