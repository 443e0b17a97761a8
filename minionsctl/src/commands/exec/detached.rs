//! `exec --detach`: waits only for the start of the program.

use crate::client::{CallDeadlines, DaemonClient, vm_path};
use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::link::{self, FirstMessage};
use crate::output::Rows;
use crate::target::Target;
use minions_api::VmName;
use minions_api::exec::{ExecInfo, ExecRequest, OnDisconnect};
use minions_proto::message::ExecAttached;
use reqwest::Method;
use std::time::Duration;

/// Deadline of the start.
const AT_MOST: Duration = Duration::from_secs(30);

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    request: ExecRequest,
    interactive: bool,
) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(_) => {
            context.printer.json(&start_over_stream(target, request, interactive).await?)?
        }
        Target::Vm(client, vm) => {
            let info = if interactive {
                let id = start_over_stream(target, request, interactive).await?.id;
                client.get(&vm_path(vm, &format!("/execs/{id}")), context.quick()).await?
            } else {
                start(client, vm, request).await?
            };
            context.printer.result(&info, |info: &ExecInfo| Rows::new().row([info.id.clone()]))?;
        }
    }
    Ok(ExitStatus::Success)
}

/// Starts the program with `detach` in the request.
async fn start(
    client: &DaemonClient,
    vm: &VmName,
    request: ExecRequest,
) -> Result<ExecInfo, Failure> {
    let request = ExecRequest { detach: true, ..request };
    let patience = CallDeadlines { asked: None, at_most: AT_MOST };
    client.send_json(Method::POST, &vm_path(vm, "/exec"), &request, patience).await
}

/// Starts the program over a stream, and leaves it at once: only a program started over a stream can keep its input
/// open.
async fn start_over_stream(
    target: &Target,
    request: ExecRequest,
    interactive: bool,
) -> Result<ExecAttached, Failure> {
    let request = ExecRequest {
        interactive: Some(interactive),
        on_disconnect: Some(OnDisconnect::Detach),
        ..request
    };
    let (attached, link) = link::open(target, &FirstMessage::Start(Box::new(request))).await?;
    link.leave().await;
    Ok(attached)
}
