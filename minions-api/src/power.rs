//! `POST /vms/{vm}/power`.

use serde::{Deserialize, Serialize};

/// What shall become of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// It ends.
    Poweroff,
    /// It starts anew, unless its VMM takes that for an end too.
    Reboot,
}

/// The request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// What to do.
    pub action: PowerAction,
    /// Whether to leave the guest's init out: programs get two seconds, file systems are synced. For
    /// a guest whose init hangs.
    #[serde(default)]
    pub force: bool,
}

/// It was heard and will be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PowerAccepted {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// The agent's own words: by whom it will be done.
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
