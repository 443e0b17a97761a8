//! `report_sample`: counters and gauges of the guest, for a host that asks at an interval.
//!
//! Counters grow from the start of the guest's kernel; the host computes rates from two samples. So the agent keeps nothing
//! between two requests, and does not wait for a measurement.

use super::bounded;
use super::call::Call;
use super::status::{Filesystem, Load};
use serde::{Deserialize, Serialize};

/// Request for a sample of the guest's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportSample {}

impl Call for ReportSample {
    type Reply = GuestSample;
    const TYPE: &'static str = "report_sample";
    const IDEMPOTENT: bool = true;
}

/// Reply to [`ReportSample`]. Figures that the guest's kernel does not provide are absent. Written by the guest: every value
/// and name may be wrong.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GuestSample {
    /// Time since the guest's kernel started, in milliseconds, including suspend.
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
    /// Times for which work waited for a resource (`/proc/pressure`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<PressureTimes>,
    /// Mounted filesystems that have blocks of their own; at most 64. Absent if one of them hangs.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<64, _, _>"
    )]
    pub filesystems: Option<Vec<Filesystem>>,
    /// Block devices without their partitions; at most 64.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<64, _, _>"
    )]
    pub disks: Option<Vec<DiskCounters>>,
    /// Network interfaces, including loopback; at most 64.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<64, _, _>"
    )]
    pub interfaces: Option<Vec<InterfaceCounters>>,
    /// Numbers of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessCounts>,
    /// Number of processes that the kernel ended for lack of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Figures of the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentFigures>,
}

/// Time that all processors have spent in each mode since boot, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CpuTimes {
    /// Programs with normal or raised priority.
    pub user_ms: u64,
    /// Programs with lowered priority.
    pub nice_ms: u64,
    /// Kernel.
    pub system_ms: u64,
    /// Nothing to do.
    pub idle_ms: u64,
    /// Nothing to do, while programs wait for a disk.
    pub iowait_ms: u64,
    /// Interrupts.
    pub irq_ms: u64,
    /// Deferred work of interrupts.
    pub softirq_ms: u64,
    /// Time in which the host ran something else.
    pub steal_ms: u64,
}

impl CpuTimes {
    /// Returns the sum over all modes.
    #[must_use]
    pub fn total_ms(&self) -> u64 {
        let Self { user_ms, nice_ms, system_ms, idle_ms, iowait_ms, irq_ms, softirq_ms, steal_ms } =
            *self;
        [user_ms, nice_ms, system_ms, idle_ms, iowait_ms, irq_ms, softirq_ms, steal_ms]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Memory and swap space, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemoryFigures {
    /// Memory of the guest (`MemTotal`).
    pub total_bytes: u64,
    /// Memory that new programs can get without swapping (`MemAvailable`).
    pub available_bytes: u64,
    /// Size of the swap space.
    pub swap_total_bytes: u64,
    /// Swap space in use.
    pub swap_used_bytes: u64,
}

/// Time since boot for which work waited for a resource, in microseconds. *Some*: at least one task waited; *full*: all tasks
/// that had something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PressureTimes {
    /// Some task waited for a processor.
    pub cpu_some_us: u64,
    /// Some task waited for memory.
    pub memory_some_us: u64,
    /// All tasks waited for memory.
    pub memory_full_us: u64,
    /// Some task waited for a disk.
    pub io_some_us: u64,
    /// All tasks waited for a disk.
    pub io_full_us: u64,
}

/// Counters of a block device since boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskCounters {
    /// Name of the device: `vda`.
    pub name: String,
    /// Number of reads that were completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Number of writes that were completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Time for which the device had something to do, in milliseconds.
    pub busy_ms: u64,
}

/// Counters of a network interface since boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InterfaceCounters {
    /// Name of the interface: `eth0`, `lo`.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Outgoing packets that were dropped.
    pub tx_dropped: u64,
}

/// Numbers of processes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessCounts {
    /// Threads that exist, including those of the kernel.
    pub threads: u32,
    /// Threads that run or could run.
    pub running: u32,
    /// Threads that wait for a disk.
    pub blocked: u32,
}

/// Figures of the agent itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentFigures {
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
    /// Programs that run.
    pub execs_running: u32,
    /// Programs that were started since the agent's start.
    pub execs_started: u64,
}

#[cfg(test)]
mod tests {
    use super::super::{Request, decode_reply, encode_reply, encode_request};
    use super::*;

    #[test]
    fn a_request_has_its_type_only() {
        let bytes = encode_request(&ReportSample {}).unwrap();
        assert_eq!(bytes, b"\x00\x00\x00\x18{\"type\":\"report_sample\"}");
        assert_eq!(Request::decode(&bytes[4..]).unwrap(), Request::ReportSample(ReportSample {}));
    }

    #[test]
    fn a_reply_has_the_figures_that_the_kernel_provides() {
        let sample = GuestSample {
            uptime_ms: 1500,
            cpus: Some(2),
            cpu: Some(CpuTimes { user_ms: 10, idle_ms: 90, ..CpuTimes::default() }),
            memory: Some(MemoryFigures {
                total_bytes: 4,
                available_bytes: 3,
                swap_total_bytes: 2,
                swap_used_bytes: 1,
            }),
            pressure: Some(PressureTimes { io_full_us: 7, ..PressureTimes::default() }),
            disks: Some(vec![DiskCounters {
                name: "vda".into(),
                reads: 1,
                ..DiskCounters::default()
            }]),
            interfaces: Some(vec![InterfaceCounters {
                name: "lo".into(),
                ..InterfaceCounters::default()
            }]),
            processes: Some(ProcessCounts { threads: 80, running: 1, blocked: 0 }),
            oom_kills: Some(0),
            agent: Some(AgentFigures { memory_bytes: 5, execs_running: 1, execs_started: 9 }),
            ..GuestSample::default()
        };
        let bytes = encode_reply(&sample).unwrap();
        let text = concat!(
            r#"{"status":"ok","uptime_ms":1500,"cpus":2,"#,
            r#""cpu":{"user_ms":10,"nice_ms":0,"system_ms":0,"idle_ms":90,"iowait_ms":0,"irq_ms":0,"softirq_ms":0,"steal_ms":0},"#,
            r#""memory":{"total_bytes":4,"available_bytes":3,"swap_total_bytes":2,"swap_used_bytes":1},"#,
            r#""pressure":{"cpu_some_us":0,"memory_some_us":0,"memory_full_us":0,"io_some_us":0,"io_full_us":7},"#,
            r#""disks":[{"name":"vda","reads":1,"read_bytes":0,"writes":0,"written_bytes":0,"busy_ms":0}],"#,
            r#""interfaces":[{"name":"lo","rx_bytes":0,"rx_packets":0,"rx_errors":0,"rx_dropped":0,"#,
            r#""tx_bytes":0,"tx_packets":0,"tx_errors":0,"tx_dropped":0}],"#,
            r#""processes":{"threads":80,"running":1,"blocked":0},"oom_kills":0,"#,
            r#""agent":{"memory_bytes":5,"execs_running":1,"execs_started":9}}"#,
        );
        assert_eq!(str::from_utf8(&bytes[4..]).unwrap(), text);
        assert_eq!(decode_reply::<GuestSample>(&bytes[4..]).unwrap(), sample);
    }

    #[test]
    fn a_list_that_no_agent_sends_is_rejected() {
        let reply = |disks: usize| {
            let disk =
                r#"{"name":"a","reads":0,"read_bytes":0,"writes":0,"written_bytes":0,"busy_ms":0}"#;
            let disks = vec![disk; disks].join(",");
            format!(r#"{{"status":"ok","uptime_ms":1,"disks":[{disks}]}}"#)
        };
        assert!(decode_reply::<GuestSample>(reply(64).as_bytes()).is_ok());
        assert!(decode_reply::<GuestSample>(reply(65).as_bytes()).is_err());
    }
}
