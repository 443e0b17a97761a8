//! Resource limits of a program's control group.

use super::files::GroupFiles;
use minions_proto::Invalid;
use rustix::io::Errno;
use std::io;

/// Largest number that `pids.max` accepts, and the largest number of processes of a kernel (`PID_MAX_LIMIT`). Unlike
/// `memory.max`, which treats any larger number as no limit, `pids.max` refuses it.
const MAX_PIDS: u64 = 4_194_304;

/// Returns the error for a limit that the guest's control groups cannot enforce.
fn unenforceable(field: &str) -> Invalid {
    let controller = if field == Limits::PIDS { "pids" } else { "memory" };
    let reason = format!(
        "cannot be enforced in this guest: a writable cgroup v2 with the {controller} controller is required; \
         omit the limit"
    );
    Invalid::new(field, reason)
}

/// Returns the error for a limit that the guest's kernel refused.
fn refused(field: &str, limit: u64, error: &io::Error) -> Invalid {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::INVAL | Errno::RANGE) => Invalid::new(
            field,
            format!("is {limit}: the guest's kernel does not accept this value"),
        ),
        Some(_) | None => unenforceable(field),
    }
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

    /// Returns the error for a program with limits that cannot be started in its control group; `None` if no limit was
    /// requested.
    pub(in crate::exec) fn unenforceable(self) -> Option<Invalid> {
        self.first().map(unenforceable)
    }

    pub(super) fn apply(self, group: &GroupFiles) -> Result<(), Invalid> {
        for (field, file, limit) in
            [(Self::MEMORY, "memory.max", self.memory_bytes), (Self::PIDS, "pids.max", self.pids)]
        {
            if let Some(limit) = limit {
                let is_unreachable = field == Self::PIDS && limit > MAX_PIDS;
                let value = if is_unreachable { "max".to_owned() } else { limit.to_string() };
                group.write(file, &value).map_err(|error| refused(field, limit, &error))?;
            }
        }
        // Without the memory controller this file does not exist. A reused group may have either value.
        let _ = group.write("memory.oom.group", if self.dies_as_one { "1" } else { "0" });
        Ok(())
    }
}
