//! `POST /vms/{vm}/power`.

pub use minions_proto::message::PowerAction;

use serde::{Deserialize, Serialize};

/// Request to power off or reboot a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// Action to take.
    pub action: PowerAction,
    /// Bypasses the guest's init, for a guest whose init hangs. Programs get two seconds to end,
    /// and file systems are synced.
    #[serde(default)]
    pub force: bool,
}

/// Confirmation that the agent will carry out the power action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PowerAccepted {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Text for people, written by the guest: which program carries out the action.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "the guest is being powered off by its init")
    )]
    pub message: String,
    /// The boot that ends: another `boot_id` is the next one. Guest-made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The step that remains to be done on the host afterwards, for a VMM that does not do all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            example = "Firecracker does not end when its guest powers off: when the guest has halted, end \
                          the VMM's process: kill 4711"
        )
    )]
    pub next_step: Option<String>,
}
