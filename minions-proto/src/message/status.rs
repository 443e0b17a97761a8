//! `report_status`: memory, disks, load and interfaces of the guest.

use super::bounded;
use super::call::Call;
use serde::{Deserialize, Serialize};

/// Request for the status of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportStatus {}

impl Call for ReportStatus {
    type Reply = Status;
    const TYPE: &'static str = "report_status";
    const IDEMPOTENT: bool = true;
}

/// Reply to [`ReportStatus`]. The first five fields are those of the base protocol; an agent of
/// protocol 2 also sends the rest. `mb` and `gb` are binary units (MiB, GiB), as in the base
/// protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
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
    /// Mounted filesystems that have blocks of their own; at most 1024.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<1024, _, _>"
    )]
    pub filesystems: Option<Vec<Filesystem>>,
    /// All network interfaces, including loopback; at most 1024.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<1024, _, _>"
    )]
    pub interfaces: Option<Vec<Interface>>,
    /// Distribution, from `os-release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Os>,
    /// Release of the kernel (`uname -r`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// Load averages of the run queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Load {
    /// Average over one minute.
    pub one: f64,
    /// Average over five minutes.
    pub five: f64,
    /// Average over fifteen minutes.
    pub fifteen: f64,
}

/// Mounted filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Filesystem {
    /// Path of the mount point.
    pub mount_point: String,
    /// Type of the filesystem: `ext4`, `xfs`, `tmpfs`, …
    pub fs_type: String,
    /// Mounted device: `/dev/vda1`.
    pub source: String,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes in use, without the reserve for root.
    pub used_bytes: u64,
    /// Bytes that an unprivileged process can still write.
    pub available_bytes: u64,
    /// True if the filesystem is mounted read-only.
    pub read_only: bool,
    /// Number of inodes. Absent if the filesystem has no fixed number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_total: Option<u64>,
    /// Inodes in use. Absent if the filesystem has no fixed number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
}

/// Network interface, as the guest's kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Interface {
    /// Name of the interface: `eth0`, `lo`.
    pub name: String,
    /// Link-layer address, `52:54:00:12:34:56`. Absent if the link has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// True if the interface is administratively up and has a carrier.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses with prefix lengths: `10.0.0.2/16`, `fe80::1/64`; at most 256.
    #[serde(deserialize_with = "bounded::list::<256, _, _>")]
    pub addresses: Vec<String>,
    /// Bytes received since boot.
    pub rx_bytes: u64,
    /// Packets received since boot.
    pub rx_packets: u64,
    /// Receive errors since boot.
    pub rx_errors: u64,
    /// Received packets dropped since boot.
    pub rx_dropped: u64,
    /// Bytes sent since boot.
    pub tx_bytes: u64,
    /// Packets sent since boot.
    pub tx_packets: u64,
    /// Send errors since boot.
    pub tx_errors: u64,
    /// Outgoing packets dropped since boot.
    pub tx_dropped: u64,
}

/// Linux distribution, from `os-release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Os {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`, such as `12`. Rolling distributions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// `PRETTY_NAME`, the name for people.
    pub pretty_name: String,
}
