//! Variables of the agent's environment that its programs do not inherit.

use crate::listen::PORT_VARIABLE;
use std::ffi::OsStr;

/// Variables that a service manager sets for the agent only (systemd.exec(5)), and the agent's own setting. A child
/// that acted on them would answer the agent's watchdog, or take the agent's sockets, directories or credentials for
/// its own.
const NAMES: [&str; 17] = [
    "CACHE_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LOGS_DIRECTORY",
    "LOG_NAMESPACE",
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    PORT_VARIABLE,
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
];

/// Families of such variables, by prefix.
const FAMILIES: [&str; 5] = ["LISTEN_", "MEMORY_PRESSURE_", "MONITOR_", "TRIGGER_", "WATCHDOG_"];

/// Reports whether a variable is only for the agent itself.
pub(super) fn is_for_agent(name: &OsStr) -> bool {
    let begins = |family: &str| name.as_encoded_bytes().starts_with(family.as_bytes());
    NAMES.iter().any(|own| name == *own) || FAMILIES.iter().any(|family| begins(family))
}
