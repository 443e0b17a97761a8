//! `power`: powers off or reboots the guest.

use super::call::Call;
use super::reply::Done;
use serde::{Deserialize, Serialize};

/// Request to power off or reboot the guest. The reply is sent before it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// Action to take.
    pub action: PowerAction,
    /// Bypasses the guest's init: programs get two seconds to end, and file systems are synced.
    #[serde(default)]
    pub force: bool,
}

/// Power action. `poweroff`: the guest shuts down. `reboot`: the guest reboots; some VMMs exit
/// instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// The guest shuts down, and its VMM exits.
    Poweroff,
    /// The guest reboots, unless its VMM exits instead (Firecracker; QEMU with `-no-reboot`).
    Reboot,
}

impl Call for Power {
    type Reply = Done;
    const TYPE: &'static str = "power";
    // A repetition that arrives after the reboot would cause a second reboot.
    const IDEMPOTENT: bool = false;
}
