//! A program that goes on by itself: only its start is waited for.

use super::Context;
use crate::client::{Patience, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::link::{self, Opening};
use crate::output::{Printer, Rows};
use crate::target::Target;
use minions_api::exec::{ExecInfo, ExecRequest, OnDisconnect};
use reqwest::Method;
use std::time::Duration;

/// A start takes no longer than any other short call.
const AT_MOST: Duration = Duration::from_secs(30);

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    request: ExecRequest,
) -> Result<ExitStatus, Failure> {
    match target {
        Target::Vm(client, vm) => {
            let request = ExecRequest { detach: true, ..request };
            let patience = Patience { asked: None, at_most: AT_MOST };
            let path = vm_path(vm, "/exec");
            let info: ExecInfo = client.send_json(Method::POST, &path, &request, patience).await?;
            context.printer.result(&info, |info| Rows::new().row([info.id.clone()]))?;
        }
        Target::Agent(_) => {
            let on_disconnect = Some(OnDisconnect::Detach);
            let request = ExecRequest { interactive: Some(false), on_disconnect, ..request };
            let (attached, link) = link::open(target, &Opening::Start(Box::new(request))).await?;
            link.leave().await;
            Printer::json(&attached)?;
        }
    }
    Ok(ExitStatus::Success)
}
