//! Programs of a VM, and their table.

use crate::client::{DaemonClient, vm_path};
use crate::commands::context::Context;
use crate::commands::ls::age;
use crate::failure::Failure;
use minions_api::VmName;
use minions_api::exec::{ExecInfo, ExecInfoList, ExecState};
use std::time::Duration;

/// Header of the table.
pub(super) const HEADER: [&str; 8] =
    ["ID", "STATE", "AGE", "EXIT", "USER", "TTY", "OUT", "COMMAND"];

/// Returns the programs of a VM: those that have processes, or with `all` every one that the agent knows.
pub(super) async fn programs(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: &VmName,
    all: bool,
) -> Result<ExecInfoList, Failure> {
    let mut list: ExecInfoList = client.get(&vm_path(vm, "/execs"), context.quick()).await?;
    let left_running = |info: &ExecInfo| info.left_running.is_some_and(|left| left > 0);
    list.execs.retain(|info| all || info.state == ExecState::Running || left_running(info));
    Ok(list)
}

/// Returns the row of a program.
pub(super) fn row(info: &ExecInfo) -> [String; 8] {
    let state = match (info.state, info.attached) {
        (ExecState::Running, _) if info.end_requested == Some(true) => "ending",
        (ExecState::Running, true) => "attached",
        (ExecState::Running, false) => "running",
        (ExecState::Ended, _) => "ended",
        (ExecState::Lost, _) => "lost",
    };
    let state =
        if info.inherited == Some(true) { format!("{state}, inherited") } else { state.to_owned() };
    // Processes that still run after the program has ended or was lost.
    let state = match info.left_running {
        Some(left) => format!("{state}+{left}"),
        None => state,
    };
    let command = std::iter::once(&info.command).chain(&info.args).map(|word| quoted(word));
    [
        info.id.clone(),
        state,
        age(Duration::from_millis(info.age_ms)),
        info.exit_code.map_or_else(|| "-".into(), |code| code.to_string()),
        info.user.clone().unwrap_or_else(|| "-".into()),
        if info.tty { "yes" } else { "no" }.into(),
        format!("{} B", info.stdout_bytes.saturating_add(info.stderr_bytes)),
        command.collect::<Vec<_>>().join(" "),
    ]
}

/// Quotes a word as a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_word_is_quoted_only_if_a_shell_needs_it() {
        for (word, shown) in
            [("ls", "ls"), ("-la", "-la"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(quoted(word), shown);
        }
    }
}
