//! The whole result at once, as JSON.

use super::Context;
use crate::agent::{self, AgentAddress};
use crate::client::{Client, Patience, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::read_all;
use crate::output::Printer;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minions_api::VmName;
use minions_api::exec::{ExecRequest, ExecResult};
use minions_proto::message::Exec;
use reqwest::Method;
use std::time::Duration;

/// minionsd's and the agent's own limit for a program whose caller names none.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What minionsd allows on top, for finding a connection and for ending a program whose time is up.
const AFTER_LIMIT: Duration = Duration::from_secs(20);

/// Input in a request whose body may have 8 MiB, of which base64 takes a quarter.
const MAX_INPUT: usize = 5 * 1024 * 1024;

/// The base call. What the agent says is printed as it is.
pub(super) async fn from_agent(
    context: &Context<'_>,
    address: &AgentAddress,
    request: ExecRequest,
) -> Result<ExitStatus, Failure> {
    let ExecRequest { command, args, timeout_ms, .. } = request;
    let call = Exec { command, args, timeout_ms };
    call.validate()?;
    let answer = agent::call(address, &call, at_most(context)).await?;
    Printer::json(&answer.json)?;
    Ok(ExitStatus::remote(answer.reply.exit_code))
}

/// minionsd's result.
pub(super) async fn from_daemon(
    context: &Context<'_>,
    client: &Client,
    vm: &VmName,
    mut request: ExecRequest,
    interactive: bool,
) -> Result<ExitStatus, Failure> {
    if interactive {
        request.stdin_base64 = Some(input()?);
    }
    let patience = Patience { asked: None, at_most: at_most(context) };
    let path = vm_path(vm, "/exec");
    let result: ExecResult = client.send_json(Method::POST, &path, &request, patience).await?;
    Printer::json(&result)?;
    Ok(ExitStatus::remote(result.exit_code))
}

fn at_most(context: &Context<'_>) -> Duration {
    context.timeout.unwrap_or(DEFAULT_LIMIT) + AFTER_LIMIT
}

/// All of our input. Nothing else is under way yet, so it may block.
fn input() -> Result<String, Failure> {
    let bytes = read_all(MAX_INPUT).map_err(Failure::Input)?;
    if bytes.len() > MAX_INPUT {
        return Err(Failure::Usage(
            "more than 5 MiB of input can only be streamed: without -o json",
        ));
    }
    Ok(BASE64_STANDARD.encode(bytes))
}
