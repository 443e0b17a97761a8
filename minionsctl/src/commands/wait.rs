//! `minionsctl wait VM`: waits until the VM is ready.

use super::Context;
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::vm::{Vm, VmState};
use minions_api::{ErrorCode, VmName};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Default time limit, long enough for a VM to boot.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// Pause between two polls. minionsd answers from its own state, without asking the guest.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    name: &VmName,
) -> Result<ExitStatus, Failure> {
    let deadline = Instant::now() + context.timeout.unwrap_or(DEFAULT_LIMIT);
    loop {
        let missing = match client.get::<Vm>(&vm_path(name, ""), Context::registry()).await {
            Ok(vm) if vm.state == VmState::Ready => {
                context
                    .printer
                    .result(&vm, |vm| Rows::new().row([format!("{} is ready", vm.name)]))?;
                return Ok(ExitStatus::Success);
            }
            Ok(vm) => why(&vm),
            // The VM may still appear.
            Err(Failure::Problem(problem)) if problem.code == ErrorCode::VmNotFound => {
                problem.detail
            }
            Err(failure) => return Err(failure),
        };
        if Instant::now() + PAUSE > deadline {
            return Err(Failure::NotReady(missing));
        }
        sleep(PAUSE).await;
    }
}

fn why(vm: &Vm) -> String {
    let state = vm.state.as_str();
    match &vm.reason {
        Some(reason) => format!("{} is {state}: {}", vm.name, reason.message),
        None => format!("{} is {state}", vm.name),
    }
}
