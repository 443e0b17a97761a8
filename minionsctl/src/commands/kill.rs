//! `minionsctl kill VM ID`: sends a signal to a program, or removes it.

use super::context::Context;
use super::wait_exec;
use crate::agent;
use crate::cli;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use crate::target::Target;
use minions_api::exec::{ExecInfo, SignalRequest};
use minions_proto::message::{ExecRemove, ExecSignal, Signal};
use reqwest::Method;
use serde::{Deserialize, Serialize};

/// Answer of minionsd to a signal request.
#[derive(Debug, Serialize, Deserialize)]
struct SignalSent {
    status: String,
    message: String,
}

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    args: &cli::KillArgs,
) -> Result<ExitStatus, Failure> {
    let id = args.exec.id.clone();
    let signal = args.signal.unwrap_or(Signal::TERM);
    match target {
        Target::Agent(address) => {
            let patience = context.quick_direct();
            let json = if args.remove {
                agent::call(address, &ExecRemove { id }, patience).await?.json
            } else {
                agent::call(address, &ExecSignal { id, signal }, patience).await?.json
            };
            context.printer.json(&json)?;
        }
        Target::Vm(client, vm) if args.remove => {
            let path = vm_path(vm, &format!("/execs/{id}"));
            let info: ExecInfo = client.delete(&path, context.quick()).await?;
            context.printer.result(&info, |info| {
                Rows::new().row([format!("removed: {}", wait_exec::end(info))])
            })?;
        }
        Target::Vm(client, vm) => {
            let path = vm_path(vm, &format!("/execs/{id}/signal"));
            let body = SignalRequest { signal: signal.to_string() };
            let done: SignalSent =
                client.send_json(Method::POST, &path, &body, context.quick()).await?;
            context.printer.result(&done, |done| Rows::new().row([done.message.clone()]))?;
        }
    }
    Ok(ExitStatus::Success)
}
