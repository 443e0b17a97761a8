//! Programs that an earlier agent has left running.
//!
//! An agent that is killed leaves its programs behind: their output has no reader any more, and their end
//! no one who waits for it. The next agent finds them by their control groups and lists them as lost, so
//! that they can be seen, sent signals and ended.

use super::object::Exec;
use super::process::{Cgroups, Record};
use super::registry::Registry;
use minions_proto::message::ExecId;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Takes in all of them.
pub(super) fn adopt(registry: &Registry, cgroups: &Cgroups) {
    let reason = format!(
        "the agent was restarted at {}; the program ran on without it, and neither its output since then \
         nor its end is known",
        now()
    );
    let mut unlisted: usize = 0;
    // The newest first, should there be no room for all.
    for (group, record, cgroup) in cgroups.left_by_others().into_iter().rev() {
        let Some(id) = free_id(registry, record.as_ref(), &group) else { continue };
        tracing::warn!(%id, "a program of an earlier agent still runs");
        let lost = Exec::lost(id, record.as_ref(), cgroup, &reason);
        unlisted += usize::from(!registry.adopt(lost));
    }
    if unlisted > 0 {
        tracing::warn!(unlisted, "there are more programs of earlier agents than are listed");
    }
}

/// Its own, or else one made of its group's name.
fn free_id(registry: &Registry, record: Option<&Record>, group: &str) -> Option<ExecId> {
    let own = record.map(|record| record.id.clone());
    own.filter(|id| registry.is_free(id)).or_else(|| format!("lost-{group}").parse().ok())
}

/// `2026-01-31T12:00:00Z`.
fn now() -> String {
    let mut text = String::new();
    // Writing to a text can't fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{seconds}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_is_told_to_the_second() {
        let now = super::now();
        let shape: String = now.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00Z");
    }
}
