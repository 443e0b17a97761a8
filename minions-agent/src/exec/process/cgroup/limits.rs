//! Resource limits of a program's control group.

use minions_proto::Invalid;
use std::fs;
use std::path::Path;

fn unenforceable(field: &str) -> Invalid {
    let controller = if field == Limits::PIDS { "pids" } else { "memory" };
    let reason = format!(
        "cannot be enforced in this guest: a writable cgroup v2 with the {controller} controller is required; \
         omit the limit"
    );
    Invalid::new(field, reason)
}

/// Limits of a program together with all processes that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::exec) struct Limits {
    pub(in crate::exec) memory_bytes: Option<u64>,
    pub(in crate::exec) pids: Option<u64>,
    /// True if the OOM killer must end all processes instead of one. False for terminals, so that the shell
    /// survives the programs that it starts.
    pub(in crate::exec) dies_as_one: bool,
}

impl Limits {
    const MEMORY: &str = "memory_bytes";
    const PIDS: &str = "pids";

    /// Returns the field name of the first limit that was requested.
    pub(in crate::exec) fn first(self) -> Option<&'static str> {
        let memory = self.memory_bytes.map(|_| Self::MEMORY);
        memory.or(self.pids.map(|_| Self::PIDS))
    }

    /// Returns the result in a guest without control groups: an error if any limit was requested, else `None`.
    pub(super) fn unless_any<T>(self) -> Result<Option<T>, Invalid> {
        self.first().map_or(Ok(None), |field| Err(unenforceable(field)))
    }

    pub(super) fn apply(self, dir: &Path) -> Result<(), Invalid> {
        for (field, file, limit) in
            [(Self::MEMORY, "memory.max", self.memory_bytes), (Self::PIDS, "pids.max", self.pids)]
        {
            if let Some(limit) = limit {
                fs::write(dir.join(file), limit.to_string()).map_err(|_| unenforceable(field))?;
            }
        }
        // Without the memory controller this file does not exist. A reused group may have either value.
        let _ = fs::write(dir.join("memory.oom.group"), if self.dies_as_one { "1" } else { "0" });
        Ok(())
    }
}
