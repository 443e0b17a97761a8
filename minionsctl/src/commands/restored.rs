//! `minionsctl restored VM`: makes the guest the next generation and runs its restore steps.

use super::context::Context;
use crate::client::{CallDeadlines, DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::VmName;
use minions_api::restore::{RestoreReport, RestoreState, RestoredRequest};
use reqwest::Method;
use std::time::Duration;

const HEADER: [&str; 4] = ["STEP", "RESULT", "TIME", "DETAIL"];

/// Longest time that minionsd waits for the steps.
const AT_MOST: Duration = Duration::from_secs(125);

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: &VmName,
) -> Result<ExitStatus, Failure> {
    let path = vm_path(vm, "/restored");
    let deadlines = CallDeadlines { asked: context.timeout, at_most: AT_MOST };
    let report: RestoreReport =
        client.send_json(Method::POST, &path, &RestoredRequest {}, deadlines).await?;
    context.printer.result(&report, steps)?;
    context.printer.remark(&format!(
        "generation {}: {} (instance {}, parent {})",
        report.generation,
        report.state.as_str(),
        report.instance_id,
        report.parent_instance_id
    ));
    Ok(if report.state == RestoreState::Done { ExitStatus::Success } else { ExitStatus::Ours })
}

/// Formats the steps of a restore.
fn steps(report: &RestoreReport) -> Rows {
    report.steps.iter().fold(Rows::with_header(&HEADER), |rows, step| {
        let result = if step.ok { "ok" } else { "failed" };
        let time = format!("{} ms", step.duration_ms);
        rows.row([step.step.clone(), result.to_owned(), time, step.detail.clone()])
    })
}
