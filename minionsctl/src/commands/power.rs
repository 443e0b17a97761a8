//! `minionsctl poweroff VM` and `minionsctl reboot VM`.

use super::{Context, Target};
use crate::agent;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::{Printer, Rows};
use minions_api::power::{PowerAccepted, PowerAction, PowerRequest};
use minions_proto::message;
use reqwest::Method;

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    action: PowerAction,
    force: bool,
) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(address) => {
            let action = match action {
                PowerAction::Poweroff => message::PowerAction::Poweroff,
                PowerAction::Reboot => message::PowerAction::Reboot,
            };
            let call = message::Power { action, force };
            let answer = agent::call(address, &call, context.quick_direct()).await?;
            Printer::json(&answer.json)?;
        }
        Target::Vm(client, vm) => {
            let body = PowerRequest { action, force };
            let path = vm_path(vm, "/power");
            let accepted: PowerAccepted =
                client.send_json(Method::POST, &path, &body, context.quick()).await?;
            context
                .printer
                .result(&accepted, |accepted| Rows::new().row([accepted.message.clone()]))?;
        }
    }
    Ok(ExitStatus::Success)
}
