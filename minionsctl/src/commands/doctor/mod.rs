//! `minionsctl doctor VM`: checks the layers from minionsd to the guest's name servers, and prints which one is
//! broken and what to do.

mod examine;
mod finding;
mod identify;

use super::context::Context;
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use examine::{GuestAnswers, examine, is_unidentified};
use finding::{Finding, Verdict};
use identify::identify;
use minions_api::VmName;
use minions_api::vm::Vm;
use serde::Serialize;

/// Findings on all layers, from the host to the guest.
#[derive(Debug, Serialize)]
struct Diagnosis {
    vm: VmName,
    /// True if no layer is broken.
    healthy: bool,
    findings: Vec<Finding>,
}

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: &VmName,
) -> Result<ExitStatus, Failure> {
    let findings = match client.get::<Vm>(&vm_path(vm, ""), Context::registry()).await {
        // An answer, even a problem, proves that minionsd works.
        Err(error @ Failure::Problem(_)) => vec![Finding::daemon(), Finding::unknown_vm(&error)],
        Err(error) => vec![Finding::no_daemon(&error)],
        Ok(known) => {
            let health = client.get(&vm_path(vm, "/health"), context.quick()).await;
            let network = client.get(&vm_path(vm, "/network"), context.quick()).await;
            let service = match &health {
                Err(error) if is_unidentified(&known, error) => identify(client, &known).await,
                Err(_) | Ok(_) => None,
            };
            let answers = GuestAnswers { health, network, service };
            [vec![Finding::daemon()], examine(&known, &answers)].concat()
        }
    };
    let healthy = findings.iter().all(|finding| finding.verdict != Verdict::Broken);
    let diagnosis = Diagnosis { vm: vm.clone(), healthy, findings };
    context.printer.result(&diagnosis, |diagnosis| {
        let lines = diagnosis.findings.iter().map(|finding| {
            [
                finding.layer.as_str().to_owned(),
                finding.verdict.as_str().to_owned(),
                finding.finding.clone(),
                finding.advice.clone().unwrap_or_default(),
            ]
        });
        lines.fold(Rows::with_header(&["LAYER", "", "FOUND", "WHAT TO DO"]), Rows::row)
    })?;
    Ok(if healthy { ExitStatus::Success } else { ExitStatus::Failure })
}
