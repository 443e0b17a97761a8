//! `GET /vms/{vm}/status`.

pub use minions_proto::message::{Filesystem, Interface, Load, Os};

use serde::{Deserialize, Serialize};

/// Status of a guest, as its agent reports it. A base agent reports only the fields up to
/// `disk_used_gb`. `mb` and `gb` are binary units (MiB, GiB).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Seconds since the guest's kernel started, rounded down.
    pub uptime_secs: u64,
    /// Memory in MiB (`MemTotal`).
    pub memory_total_mb: u64,
    /// Memory in use, in MiB (`MemTotal` minus `MemAvailable`).
    pub memory_used_mb: u64,
    /// Size of the root filesystem, in GiB.
    pub disk_total_gb: u64,
    /// Space in use on the root filesystem, in GiB.
    pub disk_used_gb: u64,
    /// Load averages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Number of processors online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Share of the processors' time that was not idle in the last sample, 0 to 100. Absent until
    /// the first sample is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Size of the swap space, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_total_mb: Option<u64>,
    /// Swap space in use, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_used_mb: Option<u64>,
    /// Mounted filesystems that have blocks of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystems: Option<Vec<Filesystem>>,
    /// All network interfaces, including loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<Interface>>,
    /// Distribution, from `os-release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Os>,
    /// Release of the kernel (`uname -r`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}
