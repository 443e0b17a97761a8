//! `minionsctl ls`: lists the VMs and their states.

use super::context::Context;
use super::declared::path_segment;
use crate::cli::{LsArgs, SelectorArgs};
use crate::client::DaemonClient;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::vm::{Vm, VmList};
use std::time::Duration;

const HEADER: [&str; 6] = ["NAME", "STATE", "AGE", "HOSTNAME", "AGENT", "REASON"];
const WIDE_HEADER: [&str; 10] = [
    "NAME",
    "STATE",
    "SINCE",
    "HOSTNAME",
    "AGENT",
    "CONFIGURED",
    "LABELS",
    "PORT",
    "SOCKET",
    "REASON",
];

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    args: &LsArgs,
) -> Result<ExitStatus, Failure> {
    let mut list = selected(client, &args.labels).await?;
    let known = list.vms.len();
    list.vms.retain(|vm| {
        let by_name = args.names.is_empty() || args.names.iter().any(|name| name.matches(&vm.name));
        by_name && args.state.is_none_or(|state| state == vm.state)
    });
    if args.quiet || context.printer.is_names() {
        context.printer.names(list.vms.iter().map(|vm| vm.name.as_str()))?;
        return Ok(ExitStatus::Success);
    }
    let is_wide = context.printer.is_wide();
    context.printer.result(&list, |list| match is_wide {
        false => list.vms.iter().fold(Rows::with_header(&HEADER), |rows, vm| rows.row(row(vm))),
        true => {
            let rows = Rows::with_header(&WIDE_HEADER);
            list.vms.iter().fold(rows, |rows, vm| rows.row(wide_row(vm)))
        }
    })?;
    if list.vms.is_empty() && !context.printer.is_structured() {
        context.printer.remark(match known {
            0 => {
                "no VMs: the directory of minionsd contains no socket of a VM with these properties"
            }
            _ => "no VM has these properties; `minionsctl ls` lists all",
        });
    }
    Ok(ExitStatus::Success)
}

/// Returns the VMs with these labels, sorted by name.
pub(super) async fn all(client: &DaemonClient) -> Result<VmList, Failure> {
    client.get("/vms", Context::registry()).await
}

/// Returns the VMs that have these labels.
pub(super) async fn selected(
    client: &DaemonClient,
    labels: &SelectorArgs,
) -> Result<VmList, Failure> {
    let path = match &labels.selector {
        None => "/vms".to_owned(),
        Some(selector) => format!("/vms?label={}", path_segment(&selector.to_string())),
    };
    client.get(&path, Context::registry()).await
}

fn row(vm: &Vm) -> [String; 6] {
    [
        vm.name.to_string(),
        vm.state.as_str().into(),
        age(vm.since.0.elapsed().unwrap_or_default()),
        vm.hostname.clone().unwrap_or_else(|| "-".into()),
        agent(vm),
        reason(vm),
    ]
}

fn wide_row(vm: &Vm) -> [String; 10] {
    [
        vm.name.to_string(),
        vm.state.as_str().into(),
        vm.since.to_string(),
        vm.hostname.clone().unwrap_or_else(|| "-".into()),
        agent(vm),
        vm.configured.map_or_else(|| "-".into(), |configured| configured.as_str().into()),
        labels(vm).unwrap_or_else(|| "-".into()),
        vm.agent_port.to_string(),
        vm.socket.clone(),
        reason(vm),
    ]
}

fn reason(vm: &Vm) -> String {
    vm.reason.as_ref().map_or_else(|| "-".into(), |reason| reason.message.clone())
}

/// Formats the labels of a VM; `None` if it has none.
pub(super) fn labels(vm: &Vm) -> Option<String> {
    let labels = vm.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let labels: Vec<_> = labels.collect();
    (!labels.is_empty()).then(|| labels.join(","))
}

/// Formats a duration with its two largest units: `2d 3h`.
pub(super) fn age(age: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = age.as_secs();
    let first = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(3);
    let mut rest = seconds;
    let parts = UNITS.iter().skip(first).take(2).filter_map(|(unit, name)| {
        let count = rest / unit;
        rest %= unit;
        (count > 0 || *unit == UNITS[first].0).then(|| format!("{count}{name}"))
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Returns the agent's version; `base` for an agent that supports only the base protocol.
pub(super) fn agent(vm: &Vm) -> String {
    match (&vm.agent, vm.last_seen) {
        (Some(agent), _) => agent.version.clone(),
        (None, Some(_)) => "base".into(),
        (None, None) => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::age;
    use std::time::Duration;

    #[test]
    fn an_age_has_at_most_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3_600, "1h"),
            (3_661, "1h 1m"),
            (86_401, "1d"),
            (200_000, "2d 7h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }
}
