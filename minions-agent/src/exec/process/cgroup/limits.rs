//! What a control group limits.

use minions_proto::Invalid;
use std::fs;
use std::path::Path;

fn unenforceable(field: &str) -> Invalid {
    let controller = if field == Limits::PIDS { "pids" } else { "memory" };
    let reason = format!(
        "can't be enforced in this guest: it takes a writable cgroup v2 with the {controller} \
         controller; leave it out"
    );
    Invalid::new(field, reason)
}

/// What a program and all that it starts may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::exec) struct Limits {
    pub(in crate::exec) memory_bytes: Option<u64>,
    pub(in crate::exec) pids: Option<u64>,
    /// Whether all of it is killed where the kernel would kill one process for want of memory. A
    /// terminal's shell outlives what was started in it.
    pub(in crate::exec) dies_as_one: bool,
}

impl Limits {
    const MEMORY: &str = "memory_bytes";
    const PIDS: &str = "pids";

    /// The first that was asked for.
    pub(in crate::exec) fn first(self) -> Option<&'static str> {
        let memory = self.memory_bytes.map(|_| Self::MEMORY);
        memory.or(self.pids.map(|_| Self::PIDS))
    }

    /// Nothing, where there is no control group: right for a program without limits.
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
        // Without the controller there is no such file. A group that was used before has either.
        let _ = fs::write(dir.join("memory.oom.group"), if self.dies_as_one { "1" } else { "0" });
        Ok(())
    }
}
