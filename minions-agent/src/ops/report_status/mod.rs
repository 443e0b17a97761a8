//! `report_status`: load, memory, disks and network of the guest, without waiting for a measurement.

mod cpu;
mod os;

use super::disks::DiskLister;
use super::health::uptime_secs;
use super::proc_files::{CpuTicks, GuestMemory, LoadFile};
use crate::net::interfaces;
use cpu::CpuMeter;
use minions_proto::message::Status;
use rustix::system::uname;
use std::time::Duration;

/// Deadline for the listing of the filesystems.
const PATIENCE: Duration = Duration::from_secs(1);

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Source of the guest's status.
#[derive(Debug)]
pub(crate) struct StatusSource {
    cpu: CpuMeter,
    disks: DiskLister,
}

impl StatusSource {
    /// Starts to sample the CPU in the background, until dropped.
    pub(crate) fn start() -> Self {
        Self { cpu: CpuMeter::start(), disks: DiskLister::default() }
    }

    /// Returns the lister of filesystems.
    pub(crate) fn disks(&self) -> &DiskLister {
        &self.disks
    }

    /// Collects the status. Values that the kernel does not provide are absent; base fields are zero instead.
    pub(crate) async fn report(&self) -> Status {
        let memory = GuestMemory::now();
        let filesystems = self.disks.list(PATIENCE).await;
        let root = filesystems
            .as_deref()
            .and_then(|all| all.iter().find(|filesystem| filesystem.mount_point == "/"));
        Status {
            uptime_secs: uptime_secs(),
            memory_total_mb: memory.map_or(0, |memory| memory.total / MIB),
            memory_used_mb: memory
                .map_or(0, |memory| memory.total.saturating_sub(memory.available) / MIB),
            disk_total_gb: root.map_or(0, |root| rounded_gib(root.total_bytes)),
            disk_used_gb: root.map_or(0, |root| rounded_gib(root.used_bytes)),
            load: LoadFile::now().map(|file| file.load),
            cpus: CpuTicks::now().map(|ticks| ticks.cpus),
            cpu_percent: self.cpu.percent(),
            swap_total_mb: memory.map(|memory| memory.swap_total / MIB),
            swap_used_mb: memory
                .map(|memory| memory.swap_total.saturating_sub(memory.swap_free) / MIB),
            filesystems,
            interfaces: interfaces::list().await.ok(),
            os: os::read(),
            kernel: Some(uname().release().to_string_lossy().into_owned()),
        }
    }
}

fn rounded_gib(bytes: u64) -> u64 {
    (bytes + GIB / 2) / GIB
}
