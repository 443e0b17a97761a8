//! Programs that outlived their agent.
//!
//! The programs of a killed agent keep running, but no process reads their output or waits for their end. The next
//! agent finds them by their control groups and lists them as lost, so that a host can list, signal and end them.
//!
//! If the guest was restored since a program was started, the program is listed as inherited, under an id that names
//! its generation (`g0.build`): in a clone, the original id must not lead to a program of the parent.

use super::object::Exec;
use super::process::{CgroupFactory, ProgramRecord};
use super::registry::ExecRegistry;
use minions_proto::message::ExecId;
use std::time::SystemTime;

/// Adds an exec to the registry for each program of an earlier agent.
pub(super) fn adopt(registry: &ExecRegistry, cgroups: &CgroupFactory) {
    let reason = format!(
        "the agent was restarted at {}; the program kept running without it, and its output since then and \
         its end are unknown",
        humantime::format_rfc3339_seconds(SystemTime::now())
    );
    let left = cgroups.left_by_others();
    let recorded = left.iter().filter_map(|(_, record, _)| record.as_ref());
    // If no program ran at the restore, there was no parent group to store the generation. Then the records of programs
    // that were started since contain it.
    let newest = recorded.map(|record| record.generation).max().unwrap_or_default();
    registry.continue_generation(cgroups.stored_generation().max(newest));
    let mut unlisted: usize = 0;
    // The newest program first, because there may not be room for all of them.
    for (group, record, cgroup) in left.into_iter().rev() {
        let generation = record.as_ref().map_or(0, |record| record.generation);
        let Some(id) = free_id(registry, record.as_ref(), &group) else { continue };
        tracing::warn!(%id, generation, "a program of an earlier agent is still running");
        let lost = Exec::lost(id, record.as_ref(), cgroup, &reason).of_generation(generation);
        unlisted += usize::from(!registry.adopt(lost));
    }
    if unlisted > 0 {
        tracing::warn!(unlisted, "more programs of earlier agents run than can be listed");
    }
}

/// Returns the recorded id of the program. If no id is recorded, or the id under which the program would be listed is
/// not free, returns an id derived from the name of the control group.
fn free_id(registry: &ExecRegistry, record: Option<&ProgramRecord>, group: &str) -> Option<ExecId> {
    let own = record.filter(|record| {
        let listed = registry.listed_id(&record.id, record.generation);
        registry.is_free(&listed)
    });
    own.map(|record| record.id.clone()).or_else(|| format!("lost-{group}").parse().ok())
}
