//! Copies from this host to many VMs at the same time.

use super::copy_end::{CopyEnd, in_guest};
use super::copy_result::CopyResult;
use super::direction;
use super::failure_log::FailureLog;
use super::job::CopyJob;
use crate::cli::{CopyArgs, CopyManyArgs};
use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::failure_line;
use futures_util::StreamExt;
use futures_util::stream;
use minions_api::vm::VmList;
use minions_api::{ErrorCode, Problem, VmName, VmPattern};
use minions_proto::Invalid;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Number of VMs at the same time, as `exec` on many VMs has it.
const CONCURRENCY: u32 = 32;

/// Result for one VM, in the order of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum VmOutcome {
    Ok,
    Incomplete,
    Failed,
    Skipped,
}

pub(super) async fn run(
    context: &Context<'_>,
    job: &CopyJob<'_>,
    args: &CopyArgs,
) -> Result<ExitStatus, Failure> {
    let (sources, path) = ends(&args.locations)?;
    let list: VmList = job.client.get("/vms", Context::registry()).await?;
    let vms = selected(&args.many, &list)?;
    let has_failed = Cell::new(false);
    let concurrency = args.many.concurrency.unwrap_or(CONCURRENCY);
    let (sources, path, has_failed) = (&sources, &path, &has_failed);
    let outcomes = stream::iter(vms).map(|vm| async move {
        if args.many.fail_fast && has_failed.get() {
            return Ok(VmOutcome::Skipped);
        }
        let outcome = to_vm(context, job, sources, &vm, path).await?;
        has_failed.set(has_failed.get() || outcome != VmOutcome::Ok);
        Ok::<_, Failure>(outcome)
    });
    let mut outcomes = outcomes.buffer_unordered(usize::try_from(concurrency).unwrap_or(1));
    let mut all = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        all.push(outcome?);
    }
    job.progress.aside(|| context.printer.remark(&summary(&all)));
    let is_ok = all.iter().all(|outcome| *outcome == VmOutcome::Ok);
    Ok(if is_ok { ExitStatus::Success } else { ExitStatus::Failure })
}

/// Returns the sources, which are on this host, and the path in each guest.
fn ends(locations: &[OsString]) -> Result<(Vec<CopyEnd>, Vec<u8>), Failure> {
    let Some((last, sources)) = locations.split_last() else {
        return Err(Failure::Usage("no destination given"));
    };
    let path = last.as_bytes().strip_prefix(b":").filter(|path| path.starts_with(b"/"));
    let path = path.ok_or(Failure::Usage("with --on or --all, the destination must be :/PATH"))?;
    let sources = sources.iter().map(|text| match CopyEnd::parse(text)? {
        source @ CopyEnd::Host(_) => Ok(source),
        CopyEnd::Guest(_) | CopyEnd::Stream => {
            Err(Failure::Usage("with --on or --all, the sources must be paths on this host"))
        }
    });
    Ok((sources.collect::<Result<_, _>>()?, path.to_vec()))
}

/// Returns the VMs that the names and patterns select.
fn selected(args: &CopyManyArgs, list: &VmList) -> Result<BTreeSet<VmName>, Failure> {
    let every = ["*".to_owned()];
    let wanted = if args.all { &every[..] } else { &args.on };
    let mut found = BTreeSet::new();
    for text in wanted {
        let pattern: VmPattern =
            text.parse().map_err(|error| Invalid::value("--on", text, &format!("{error}")))?;
        let names = list.vms.iter().map(|vm| &vm.name).filter(|name| pattern.matches(name));
        let mut matched = names.cloned().peekable();
        if matched.peek().is_none() {
            let detail = format!("no VM's name matches {text:?}; `minionsctl ls` lists all VMs");
            return Err(Failure::Problem(Box::new(Problem::new(ErrorCode::VmNotFound, detail))));
        }
        found.extend(matched);
    }
    Ok(found)
}

/// Copies all sources to one VM.
async fn to_vm(
    context: &Context<'_>,
    job: &CopyJob<'_>,
    sources: &[CopyEnd],
    vm: &VmName,
    path: &[u8],
) -> Result<VmOutcome, Failure> {
    let end = in_guest(vm, path);
    let destination = job.destination(end.clone(), sources.len() > 1).await.map_err(Arc::new);
    let mut worst = VmOutcome::Ok;
    for source in sources {
        let log = Arc::new(FailureLog::new(job.progress, Some(vm.clone())));
        let copied = match &destination {
            Ok(destination) => {
                direction::copy(job, source, destination, &log).await.map_err(Arc::new)
            }
            Err(failure) => Err(Arc::clone(failure)),
        };
        if let Err(failure) = &copied {
            let line = format!("{vm}: {}", failure_line(failure));
            job.progress.aside(|| context.printer.remark(&line));
        }
        let summary = copied.as_ref().map(|summary| *summary).map_err(|failure| &**failure);
        let result = CopyResult::of((source, &end), Some(vm.clone()), summary, &log);
        worst = worst.max(match result.status {
            "ok" => VmOutcome::Ok,
            "incomplete" => VmOutcome::Incomplete,
            _ => VmOutcome::Failed,
        });
        if context.printer.is_structured() {
            context.printer.json_line(&result)?;
        }
    }
    Ok(worst)
}

/// Formats the counts as `50 VMs: 48 ok, 2 failed`.
fn summary(all: &[VmOutcome]) -> String {
    let count = |wanted| all.iter().filter(|outcome| **outcome == wanted).count();
    let kinds = [
        (VmOutcome::Ok, "ok"),
        (VmOutcome::Incomplete, "incomplete"),
        (VmOutcome::Failed, "failed"),
        (VmOutcome::Skipped, "skipped"),
    ];
    let counts = kinds.iter().map(|(outcome, name)| (count(*outcome), name));
    let shown: Vec<_> = counts
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let vms = if all.len() == 1 { "VM" } else { "VMs" };
    format!("{} {vms}: {}", all.len(), shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_each_outcome() {
        let all = [VmOutcome::Ok, VmOutcome::Failed, VmOutcome::Ok, VmOutcome::Skipped];
        assert_eq!(summary(&all), "4 VMs: 2 ok, 1 failed, 1 skipped");
        assert_eq!(summary(&all[..1]), "1 VM: 1 ok");
    }

    #[test]
    fn many_vms_need_a_path_and_sources_on_this_host() {
        let of = |texts: &[&str]| ends(&texts.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of(&["a", "b", ":/etc"]).unwrap().1, b"/etc");
        for refused in [&["a", "/etc"][..], &["a", ":etc"], &["web-1:/a", ":/etc"], &["-", ":/etc"]]
        {
            assert!(of(refused).is_err(), "{refused:?}");
        }
    }
}
