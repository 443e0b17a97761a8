//! `minionsctl apply -f PATH` and `minionsctl diff -f PATH`.

use super::files::DeclaredFiles;
use crate::cli;
use crate::client::{CallDeadlines, DaemonClient};
use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::declaration::{
    AppliedItem, ApplyAction, ApplyReport, ApplyRequest, DeclaredKind, FieldDiff,
};
use reqwest::Method;
use std::time::Duration;

/// Longest time that minionsd takes for 10,000 declarations.
const PATIENCE: Duration = Duration::from_secs(30);

/// Number of VMs that are named.
const NAMED_VMS: usize = 10;

/// Runs `apply`.
pub(in super::super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    args: &cli::ApplyArgs,
) -> Result<ExitStatus, Failure> {
    send(context, client, &args.files, args.prune, args.dry_run).await?;
    Ok(ExitStatus::Success)
}

/// Runs `diff`: with the exit code 1 if anything differs.
pub(in super::super) async fn diff(
    context: &Context<'_>,
    client: &DaemonClient,
    args: &cli::DiffArgs,
) -> Result<ExitStatus, Failure> {
    let report = send(context, client, &args.files, args.prune, true).await?;
    Ok(if report.changed { ExitStatus::Failure } else { ExitStatus::Success })
}

async fn send(
    context: &Context<'_>,
    client: &DaemonClient,
    files: &cli::DeclarationFiles,
    prune: bool,
    dry_run: bool,
) -> Result<ApplyReport, Failure> {
    let mut declared = DeclaredFiles::read(&files.paths)?;
    if prune && declared.pools.is_empty() && declared.declarations.is_empty() {
        // A generator that failed prints nothing.
        return Err(Failure::Usage(
            "--prune with files that declare nothing would remove everything: name at least one declaration or pool",
        ));
    }
    let request = ApplyRequest {
        pools: std::mem::take(&mut declared.pools),
        declarations: std::mem::take(&mut declared.declarations),
        prune,
        dry_run,
    };
    let patience = CallDeadlines { asked: None, at_most: PATIENCE };
    let sent = client.send_json(Method::POST, "/declarations", &request, patience).await;
    (declared.pools, declared.declarations) = (request.pools, request.declarations);
    let report: ApplyReport = sent.inspect_err(|failure| {
        if let Failure::Problem(problem) = failure
            && let Some(place) = problem.field.as_deref().and_then(|one| declared.describe(one))
        {
            context.printer.remark(&place);
        }
    })?;
    context.printer.result(&report, rows)?;
    for warning in &report.warnings {
        context.printer.remark(&format!("warning: {warning}"));
    }
    Ok(report)
}

fn rows(report: &ApplyReport) -> Rows {
    let changed = report.items.iter().filter(|item| item.action != ApplyAction::Unchanged);
    let rows = changed.fold(Rows::new(), add_item);
    let rows = rows.row([summary(report)]);
    match report.vms_total {
        0 => rows,
        _ => rows.row([affected(report)]),
    }
}

fn add_item(rows: Rows, item: &AppliedItem) -> Rows {
    let mark = match item.action {
        ApplyAction::Created => "+",
        ApplyAction::Updated => "~",
        ApplyAction::Removed => "-",
        ApplyAction::Unchanged => "=",
    };
    let kind = match item.kind {
        DeclaredKind::Pool => "pool",
        DeclaredKind::Declaration => "declaration",
    };
    let rows = rows.row([format!("{mark} {kind} {}", item.name)]);
    item.diff.iter().fold(rows, |rows, diff| rows.row([format!("    {}", difference(diff))]))
}

fn difference(FieldDiff { field, from, to }: &FieldDiff) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("~ {field}: {from} -> {to}"),
        (None, Some(to)) => format!("+ {field}: {to}"),
        (Some(from), None) => format!("- {field}: {from}"),
        (None, None) => field.clone(),
    }
}

fn summary(report: &ApplyReport) -> String {
    let count = |action| report.items.iter().filter(|item| item.action == action).count();
    let actions =
        [ApplyAction::Created, ApplyAction::Updated, ApplyAction::Removed, ApplyAction::Unchanged];
    let counts = actions.map(|action| (action.as_str(), count(action)));
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(action, count)| format!("{count} {action}")).collect();
    let counts = if counts.is_empty() { "nothing declared".to_owned() } else { counts.join(", ") };
    match (report.changed, report.dry_run) {
        (true, true) => format!("{counts} (dry run: nothing was changed)"),
        (true, false) => counts,
        (false, _) => format!("{counts}: nothing to change"),
    }
}

fn affected(report: &ApplyReport) -> String {
    let names = report.vms.iter().take(NAMED_VMS).map(ToString::to_string);
    let names: Vec<_> = names.collect();
    let total = report.vms_total;
    let more = total.saturating_sub(names.len() as u64);
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    let vms = if total == 1 { "VM" } else { "VMs" };
    format!("{total} {vms} with another configuration: {}{rest}", names.join(", "))
}
