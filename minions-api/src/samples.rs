//! `GET /vms/{vm}/samples`: figures of a guest over the last hour.

pub use minions_proto::message::{
    AgentFigures, CpuTimes, DiskCounters, InterfaceCounters, Load, MemoryFigures, PressureTimes,
    ProcessCounts,
};

use crate::timestamp::Timestamp;
use minions_proto::message::Filesystem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Figures of a guest, from the memory of minionsd: the guest is not asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestSamples {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Time between two samples, in milliseconds. Absent: minionsd asks this VM for no samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Last sample. Absent before the first one; kept while the VM does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<LatestSample>,
    /// Samples of the last hour, the oldest first. A time for which the VM did not answer has none.
    pub samples: Vec<SamplePoint>,
}

/// Last sample of a guest, with counters since the boot of its kernel. Figures that the kernel does not provide are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LatestSample {
    /// Time at which minionsd received the sample.
    pub at: Timestamp,
    /// Time since then, in milliseconds.
    pub age_ms: u64,
    /// Time since the guest's kernel started, in milliseconds.
    pub uptime_ms: u64,
    /// Number of processors online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Processor time by mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuTimes>,
    /// Load averages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Memory and swap space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryFigures>,
    /// Times for which work waited for a resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<PressureTimes>,
    /// Mounted filesystems, at most 64. Absent if one of them hangs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystems: Option<Vec<Filesystem>>,
    /// Block devices without their partitions, at most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<DiskCounters>>,
    /// Network interfaces, at most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<InterfaceCounters>>,
    /// Numbers of threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessCounts>,
    /// Number of processes that the kernel ended for lack of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Figures of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentFigures>,
}

/// Figures of a guest at one time. Rates cover the time since the sample before; they are absent in the first sample after a
/// boot or a gap. Percentages are rounded to hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SamplePoint {
    /// Time at which minionsd received the sample.
    pub at: Timestamp,
    /// Share of the time of all processors that programs had, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_percent: Option<f64>,
    /// Share of the kernel and its interrupts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_percent: Option<f64>,
    /// Share in which programs only waited for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iowait_percent: Option<f64>,
    /// Share in which the host ran something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal_percent: Option<f64>,
    /// Load average over one minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Number of threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Memory of the guest, in bytes; a multiple of 1024, like all sizes here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Memory that new programs can get without swapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Swap space in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_used_bytes: Option<u64>,
    /// Use of the fullest filesystem that is not read-only, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem_percent: Option<f64>,
    /// Share of the time in which some task waited for a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_percent: Option<f64>,
    /// Share of the time in which some task waited for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_pressure_percent: Option<f64>,
    /// Share of the time in which some task waited for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_pressure_percent: Option<f64>,
    /// Bytes per second that were read from all disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_read_rate: Option<f64>,
    /// Bytes per second that were written to all disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_write_rate: Option<f64>,
    /// Bytes per second that were received on all interfaces without loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_rate: Option<f64>,
    /// Bytes per second that were sent on all interfaces without loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_rate: Option<f64>,
}

/// Target of Prometheus's HTTP service discovery (`http_sd_config`): an exporter in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScrapeTarget {
    /// Address and port of the exporter; always one.
    #[cfg_attr(feature = "openapi", schema(example = json!(["10.0.0.2:9100"])))]
    pub targets: Vec<String>,
    /// `__meta_minions_vm`, `__meta_minions_state`, and `__meta_minions_label_…` for each declared label.
    pub labels: BTreeMap<String, String>,
}
