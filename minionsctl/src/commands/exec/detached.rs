//! A program that goes on by itself: only its start is waited for.

use super::Context;
use crate::client::{Client, Patience, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::link::{self, Opening};
use crate::output::{Printer, Rows};
use crate::target::Target;
use minions_api::VmName;
use minions_api::exec::{ExecInfo, ExecRequest, OnDisconnect};
use minions_proto::message::ExecAttached;
use reqwest::Method;
use std::time::Duration;

/// A start takes no longer than any other short call.
const AT_MOST: Duration = Duration::from_secs(30);

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    request: ExecRequest,
    interactive: bool,
) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(_) => Printer::json(&left(target, request, interactive).await?)?,
        Target::Vm(client, vm) => {
            let info = if interactive {
                let id = left(target, request, interactive).await?.id;
                client.get(&vm_path(vm, &format!("/execs/{id}")), context.quick()).await?
            } else {
                started(client, vm, request).await?
            };
            context.printer.result(&info, |info: &ExecInfo| Rows::new().row([info.id.clone()]))?;
        }
    }
    Ok(ExitStatus::Success)
}

/// By the request for it.
async fn started(client: &Client, vm: &VmName, request: ExecRequest) -> Result<ExecInfo, Failure> {
    let request = ExecRequest { detach: true, ..request };
    let patience = Patience { asked: None, at_most: AT_MOST };
    client.send_json(Method::POST, &vm_path(vm, "/exec"), &request, patience).await
}

/// As a stream that is left at once: only a stream's program can have an input that is open.
async fn left(
    target: &Target,
    request: ExecRequest,
    interactive: bool,
) -> Result<ExecAttached, Failure> {
    let (interactive, on_disconnect) = (Some(interactive), Some(OnDisconnect::Detach));
    let request = ExecRequest { interactive, on_disconnect, ..request };
    let (attached, link) = link::open(target, &Opening::Start(Box::new(request))).await?;
    link.leave().await;
    Ok(attached)
}
