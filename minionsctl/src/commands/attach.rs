//! `minionsctl attach VM ID`: re-attaches to a program.

use super::context::Context;
use crate::agent;
use crate::cli;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::link::FirstMessage;
use crate::local::terminal::{input_is_terminal, output_is_terminal};
use crate::session::{Session, SessionPlan, come_back};
use crate::target::Target;
use minions_api::exec::{self as api, AttachRequest, ExecInfo};
use minions_proto::message::{ExecId, ExecInspect, OnDisconnect};

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    args: &cli::AttachArgs,
) -> Result<ExitStatus, Failure> {
    let id = &args.exec.id;
    let AttachProperties { tty, outlives_us } = properties(context, target, id).await?;
    let interactive = args.interactive || input_is_terminal();
    let request =
        AttachRequest { attach: id.to_string(), stdout_offset: None, stderr_offset: None };
    let plan = SessionPlan {
        opening: FirstMessage::Attach(request),
        minted: false,
        interactive,
        tty: tty && output_is_terminal(),
        raw: tty && input_is_terminal() && output_is_terminal(),
        outlives_us,
        come_back: come_back(target),
        timeout: context.timeout,
    };
    Session::new(target, context.printer, plan)?.run().await
}

/// Properties of the program that determine how to attach.
struct AttachProperties {
    tty: bool,
    outlives_us: bool,
}

async fn properties(
    context: &Context<'_>,
    target: &Target,
    id: &ExecId,
) -> Result<AttachProperties, Failure> {
    match target {
        Target::Vm(client, vm) => {
            let path = vm_path(vm, &format!("/execs/{id}"));
            let info: ExecInfo = client.get(&path, context.quick()).await?;
            let outlives_us = info.on_disconnect == api::OnDisconnect::Detach;
            Ok(AttachProperties { tty: info.tty, outlives_us })
        }
        Target::Agent(address) => {
            let call = ExecInspect { id: id.clone(), wait_ms: None };
            let info = agent::call(address, &call, context.quick_direct()).await?.reply;
            let outlives_us = info.on_disconnect == OnDisconnect::Detach;
            Ok(AttachProperties { tty: info.tty, outlives_us })
        }
    }
}
