//! `minionsctl exec VM -- CMD ARGS…`: as transparent as a shell's own child.

use super::{Context, Target};
use crate::agent;
use crate::client::{Patience, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Printer;
use minions_api::exec::{ExecRequest, ExecResult};
use minions_proto::message::Exec;
use reqwest::Method;
use std::time::Duration;

/// minionsd's and the agent's own limit for a program whose caller names none.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What minionsd allows on top, for finding a connection and for ending a program whose time is up.
const AFTER_LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    argv: Vec<String>,
) -> Result<ExitStatus, Failure> {
    let mut argv = argv.into_iter();
    let command = argv.next().unwrap_or_default();
    let args = argv.collect();
    let timeout_ms =
        context.timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let at_most = context.timeout.unwrap_or(DEFAULT_LIMIT) + AFTER_LIMIT;
    match target {
        Target::Agent(socket) => {
            let call = Exec { command, args, timeout_ms };
            call.validate()?;
            let answer = agent::call(socket, &call, at_most).await?;
            Printer::json(&answer.json)?;
            Ok(ExitStatus::remote(answer.reply.exit_code))
        }
        Target::Vm(client, vm) => {
            let body = ExecRequest { command, args, timeout_ms };
            let patience = Patience { asked: None, at_most };
            let path = vm_path(vm, "/exec");
            let result: ExecResult = client.send_json(Method::POST, &path, &body, patience).await?;
            show(context.printer, &result)?;
            Ok(ExitStatus::remote(result.exit_code))
        }
    }
}

fn show(printer: &Printer, result: &ExecResult) -> Result<(), Failure> {
    if printer.is_json() {
        return Printer::json(result);
    }
    printer.program(&result.stdout, &result.stderr)?;
    if result.stdout_truncated == Some(true) || result.stderr_truncated == Some(true) {
        printer.remark("warning: the output was too long; its middle is missing");
    }
    Ok(())
}
