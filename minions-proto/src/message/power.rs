//! `power`: the guest ends, or starts anew.

use super::{Call, Done};
use serde::{Deserialize, Serialize};

/// The name under which an agent's features tell that it knows this request.
pub const POWER_FEATURE: &str = "power";

/// The request. Its reply comes before the guest begins to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// What shall become of the guest.
    pub action: PowerAction,
    /// Whether to leave the guest's init out: programs get two seconds to end, and file systems are
    /// synced.
    #[serde(default)]
    pub force: bool,
}

/// What can become of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// It ends, and its VMM with it.
    Poweroff,
    /// It starts anew, unless its VMM takes that for an end too (Firecracker; QEMU's `-no-reboot`).
    Reboot,
}

impl Call for Power {
    type Reply = Done;
    const TYPE: &'static str = "power";
    // One that arrives after the reboot would be a second reboot.
    const IDEMPOTENT: bool = false;
}
