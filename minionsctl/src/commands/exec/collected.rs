//! `exec` with the whole result at once, as JSON.

use crate::agent;
use crate::agent_address::AgentAddress;
use crate::client::{CallDeadlines, DaemonClient, vm_path};
use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::read_all;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minions_api::VmName;
use minions_api::exec::{ExecRequest, ExecResult};
use minions_proto::message::Exec;
use reqwest::Method;
use std::time::Duration;

/// Default time limit of minionsd and of the agent for a program.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Time on top of the limit, in which minionsd gets a connection and the agent ends a program at its limit.
const AFTER_LIMIT: Duration = Duration::from_secs(20);

/// Largest input, in bytes. As base64 it takes 6.7 MiB of a body that may have 8 MiB.
const MAX_INPUT: usize = 5 * 1024 * 1024;

/// Makes the base call, and prints the agent's reply.
pub(super) async fn from_agent(
    context: &Context<'_>,
    address: &AgentAddress,
    request: ExecRequest,
) -> Result<ExitStatus, Failure> {
    let ExecRequest { command, args, timeout_ms, .. } = request;
    let call = Exec { command, args, timeout_ms };
    call.validate()?;
    let answer = agent::call(address, &call, at_most(context)).await?;
    context.printer.json(&answer.json)?;
    Ok(ExitStatus::remote(answer.reply.exit_code))
}

/// Runs the program through minionsd, and prints the result.
pub(super) async fn from_daemon(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: &VmName,
    mut request: ExecRequest,
    interactive: bool,
) -> Result<ExitStatus, Failure> {
    if interactive {
        request.stdin_base64 = Some(input()?);
    }
    let patience = CallDeadlines { asked: None, at_most: at_most(context) };
    let path = vm_path(vm, "/exec");
    let result: ExecResult = client.send_json(Method::POST, &path, &request, patience).await?;
    context.printer.json(&result)?;
    Ok(ExitStatus::remote(result.exit_code))
}

fn at_most(context: &Context<'_>) -> Duration {
    context.timeout.unwrap_or(DEFAULT_LIMIT) + AFTER_LIMIT
}

/// Reads all of standard input, blocking: no other task runs yet.
fn input() -> Result<String, Failure> {
    let bytes = read_all(MAX_INPUT).map_err(Failure::Input)?;
    if bytes.len() > MAX_INPUT {
        return Err(Failure::Usage(
            "input of more than 5 MiB must be streamed: run without -o json",
        ));
    }
    Ok(BASE64_STANDARD.encode(bytes))
}
