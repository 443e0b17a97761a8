//! `report_status`: how is the guest doing?

use super::{Call, bounded};
use serde::{Deserialize, Serialize};

/// The request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportStatus {}

impl Call for ReportStatus {
    type Reply = Status;
    const TYPE: &'static str = "report_status";
    const IDEMPOTENT: bool = true;
}

/// The reply. The first five fields are the base protocol's; an agent of protocol 2 sends the rest
/// too. `mb` and `gb` are binary (MiB, GiB), as the base protocol has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whole seconds since the guest's kernel started.
    pub uptime_secs: u64,
    /// `MemTotal`.
    pub memory_total_mb: u64,
    /// `MemTotal` less `MemAvailable`.
    pub memory_used_mb: u64,
    /// Size of the root filesystem.
    pub disk_total_gb: u64,
    /// Used on the root filesystem.
    pub disk_used_gb: u64,
    /// Run-queue averages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Processors online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Share of all processors' time that was not idle in the last sample, 0 to 100. Absent until
    /// the first sample is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Swap size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_total_mb: Option<u64>,
    /// Swap in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_used_mb: Option<u64>,
    /// Every mounted filesystem that has blocks of its own; at most 1024.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<1024, _, _>"
    )]
    pub filesystems: Option<Vec<Filesystem>>,
    /// Every network interface, loopback included; at most 1024.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<1024, _, _>"
    )]
    pub interfaces: Option<Vec<Interface>>,
    /// From `os-release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Os>,
    /// `uname -r`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// Load averages over one, five and fifteen minutes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Over one minute.
    pub one: f64,
    /// Over five minutes.
    pub five: f64,
    /// Over fifteen minutes.
    pub fifteen: f64,
}

/// One mounted filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Where it is mounted.
    pub mount_point: String,
    /// `ext4`, `xfs`, `tmpfs`, …
    pub fs_type: String,
    /// What is mounted: `/dev/vda1`.
    pub source: String,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes in use, root's reserve not counted.
    pub used_bytes: u64,
    /// Bytes that an unprivileged process can still write.
    pub available_bytes: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

/// One network interface as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`, `lo`.
    pub name: String,
    /// Link-layer address, `52:54:00:12:34:56`; absent where the link has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Administratively up and with carrier.
    pub up: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// `10.0.0.2/16`, `fe80::1/64`; at most 256.
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
    /// Packets to send dropped since boot.
    pub tx_dropped: u64,
}

/// The distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// `ID`: `debian`.
    pub id: String,
    /// `VERSION_ID`: `12`. Rolling distributions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// `PRETTY_NAME`.
    pub pretty_name: String,
}
