//! `report_sample`: counters and gauges of the guest, read when they are asked for.

mod counters;

use super::disks::DiskLister;
use super::proc_files::{CpuTicks, GuestMemory, LoadFile};
use crate::boot_clock;
use crate::exec::Executor;
use minions_proto::message::{AgentFigures, CpuTimes, GuestSample, MemoryFigures, ProcessCounts};
use rustix::param::clock_ticks_per_second;
use std::time::Duration;

/// Deadline for the listing of the filesystems. It takes microseconds unless one of them hangs, and a sample is asked for at
/// short intervals.
const PATIENCE: Duration = Duration::from_millis(100);

/// Limit of the protocol for each list. The first ones of the kernel's order are kept.
const MAX_LISTED: usize = 64;

/// Collects a sample. Figures that the kernel does not provide are absent.
pub(super) async fn answer(disks: &DiskLister, executor: &Executor) -> GuestSample {
    let (ticks, load, memory) = (CpuTicks::now(), LoadFile::now(), GuestMemory::now());
    let mut filesystems = disks.list(PATIENCE).await;
    if let Some(filesystems) = &mut filesystems {
        filesystems.truncate(MAX_LISTED);
    }
    let (execs_running, execs_started) = executor.counts();
    GuestSample {
        uptime_ms: boot_clock::now_ms(),
        cpus: ticks.map(|ticks| ticks.cpus),
        cpu: ticks.map(cpu_times),
        load: load.map(|file| file.load),
        memory: memory.map(memory_figures),
        pressure: counters::pressure(),
        filesystems,
        disks: counters::disks(),
        interfaces: counters::interfaces(),
        processes: load.map(|file| ProcessCounts {
            threads: file.threads,
            running: file.running,
            blocked: counters::blocked_threads().unwrap_or(0),
        }),
        oom_kills: counters::oom_kills(),
        agent: Some(AgentFigures {
            memory_bytes: counters::own_memory().unwrap_or(0),
            execs_running,
            execs_started,
        }),
    }
}

fn cpu_times(ticks: CpuTicks) -> CpuTimes {
    // At least 1, and 100 on all common architectures.
    let per_second = clock_ticks_per_second().max(1);
    let ms = |ticks: u64| ticks.saturating_mul(1000) / per_second;
    let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks.modes.map(ms);
    CpuTimes {
        user_ms: user,
        nice_ms: nice,
        system_ms: system,
        idle_ms: idle,
        iowait_ms: iowait,
        irq_ms: irq,
        softirq_ms: softirq,
        steal_ms: steal,
    }
}

fn memory_figures(memory: GuestMemory) -> MemoryFigures {
    MemoryFigures {
        total_bytes: memory.total,
        available_bytes: memory.available,
        swap_total_bytes: memory.swap_total,
        swap_used_bytes: memory.swap_total.saturating_sub(memory.swap_free),
    }
}
