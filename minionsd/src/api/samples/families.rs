//! Families of metrics of a guest, and the figures of a sample that each has.

use crate::metrics::text::MetricType::{self, Counter, Gauge};
use minions_proto::message::{DiskCounters, Filesystem, GuestSample, InterfaceCounters};

/// Receiver of a figure with its labels.
type FigureWriter<'a> = dyn FnMut(&[(&str, &str)], f64) + 'a;

/// Family of metrics.
pub(super) struct GuestFamily {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    pub(super) help: &'static str,
    /// Writes the figures of a guest, if it has any.
    pub(super) figures: fn(&GuestSample, &mut FigureWriter<'_>),
}

/// All families, in the order of the page.
pub(super) static FAMILIES: [GuestFamily; 29] = [
    GuestFamily {
        name: "minions_guest_uptime_seconds",
        kind: Gauge,
        help: "Time since the guest's kernel started.",
        figures: |guest, write| {
            if let Some(figure) = Some(seconds(guest.uptime_ms)) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_cpus",
        kind: Gauge,
        help: "Processors that are online.",
        figures: |guest, write| {
            if let Some(figure) = guest.cpus.map(f64::from) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_cpu_seconds_total",
        kind: Counter,
        help: "Processor time by mode, over all processors.",
        figures: processor_times,
    },
    GuestFamily {
        name: "minions_guest_load",
        kind: Gauge,
        help: "Load average over 1, 5 and 15 minutes.",
        figures: loads,
    },
    GuestFamily {
        name: "minions_guest_pressure_seconds_total",
        kind: Counter,
        help: "Time for which some task, or all tasks (full), waited for a resource (PSI).",
        figures: pressures,
    },
    GuestFamily {
        name: "minions_guest_memory_total_bytes",
        kind: Gauge,
        help: "Memory of the guest.",
        figures: |guest, write| {
            if let Some(figure) = guest.memory.map(|memory| number(memory.total_bytes)) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_memory_available_bytes",
        kind: Gauge,
        help: "Memory that new programs can get without swapping.",
        figures: |guest, write| {
            if let Some(figure) = guest.memory.map(|memory| number(memory.available_bytes)) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_swap_total_bytes",
        kind: Gauge,
        help: "Size of the swap space.",
        figures: |guest, write| {
            if let Some(figure) = guest.memory.map(|memory| number(memory.swap_total_bytes)) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_swap_used_bytes",
        kind: Gauge,
        help: "Swap space in use.",
        figures: |guest, write| {
            if let Some(figure) = guest.memory.map(|memory| number(memory.swap_used_bytes)) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_oom_kills_total",
        kind: Counter,
        help: "Processes that the guest's kernel ended for lack of memory.",
        figures: |guest, write| {
            if let Some(figure) = guest.oom_kills.map(number) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_filesystem_size_bytes",
        kind: Gauge,
        help: "Size of a filesystem.",
        figures: |guest, write| filesystems(guest, write, |one| Some(one.total_bytes)),
    },
    GuestFamily {
        name: "minions_guest_filesystem_used_bytes",
        kind: Gauge,
        help: "Space in use on a filesystem.",
        figures: |guest, write| filesystems(guest, write, |one| Some(one.used_bytes)),
    },
    GuestFamily {
        name: "minions_guest_filesystem_available_bytes",
        kind: Gauge,
        help: "Space that unprivileged programs can still use.",
        figures: |guest, write| filesystems(guest, write, |one| Some(one.available_bytes)),
    },
    GuestFamily {
        name: "minions_guest_filesystem_inodes",
        kind: Gauge,
        help: "Inodes of a filesystem.",
        figures: |guest, write| filesystems(guest, write, |one| one.inodes_total),
    },
    GuestFamily {
        name: "minions_guest_filesystem_inodes_used",
        kind: Gauge,
        help: "Inodes in use on a filesystem.",
        figures: |guest, write| filesystems(guest, write, |one| one.inodes_used),
    },
    GuestFamily {
        name: "minions_guest_filesystem_read_only",
        kind: Gauge,
        help: "1 if a filesystem is mounted read-only, otherwise 0.",
        figures: |guest, write| filesystems(guest, write, |one| Some(u64::from(one.read_only))),
    },
    GuestFamily {
        name: "minions_guest_disk_reads_total",
        kind: Counter,
        help: "Reads that a disk completed.",
        figures: |guest, write| disks(guest, write, |disk| number(disk.reads)),
    },
    GuestFamily {
        name: "minions_guest_disk_read_bytes_total",
        kind: Counter,
        help: "Bytes read from a disk.",
        figures: |guest, write| disks(guest, write, |disk| number(disk.read_bytes)),
    },
    GuestFamily {
        name: "minions_guest_disk_writes_total",
        kind: Counter,
        help: "Writes that a disk completed.",
        figures: |guest, write| disks(guest, write, |disk| number(disk.writes)),
    },
    GuestFamily {
        name: "minions_guest_disk_written_bytes_total",
        kind: Counter,
        help: "Bytes written to a disk.",
        figures: |guest, write| disks(guest, write, |disk| number(disk.written_bytes)),
    },
    GuestFamily {
        name: "minions_guest_disk_busy_seconds_total",
        kind: Counter,
        help: "Time for which a disk had something to do.",
        figures: |guest, write| disks(guest, write, |disk| seconds(disk.busy_ms)),
    },
    GuestFamily {
        name: "minions_guest_network_bytes_total",
        kind: Counter,
        help: "Bytes that an interface received and sent.",
        figures: |guest, write| interfaces(guest, write, |one| [one.rx_bytes, one.tx_bytes]),
    },
    GuestFamily {
        name: "minions_guest_network_packets_total",
        kind: Counter,
        help: "Packets that an interface received and sent.",
        figures: |guest, write| interfaces(guest, write, |one| [one.rx_packets, one.tx_packets]),
    },
    GuestFamily {
        name: "minions_guest_network_errors_total",
        kind: Counter,
        help: "Errors of an interface.",
        figures: |guest, write| interfaces(guest, write, |one| [one.rx_errors, one.tx_errors]),
    },
    GuestFamily {
        name: "minions_guest_network_dropped_total",
        kind: Counter,
        help: "Packets that an interface dropped.",
        figures: |guest, write| interfaces(guest, write, |one| [one.rx_dropped, one.tx_dropped]),
    },
    GuestFamily {
        name: "minions_guest_threads",
        kind: Gauge,
        help: "Threads of the guest by state; all includes those that sleep.",
        figures: threads,
    },
    GuestFamily {
        name: "minions_guest_agent_memory_bytes",
        kind: Gauge,
        help: "Resident memory of the agent.",
        figures: |guest, write| {
            if let Some(figure) = guest.agent.map(|agent| number(agent.memory_bytes)) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_execs_running",
        kind: Gauge,
        help: "Programs of clients that run in the guest.",
        figures: |guest, write| {
            if let Some(figure) = guest.agent.map(|agent| f64::from(agent.execs_running)) {
                write(&[], figure);
            }
        },
    },
    GuestFamily {
        name: "minions_guest_execs_started_total",
        kind: Counter,
        help: "Programs that the agent has started.",
        figures: |guest, write| {
            if let Some(figure) = guest.agent.map(|agent| number(agent.execs_started)) {
                write(&[], figure);
            }
        },
    },
];

fn processor_times(guest: &GuestSample, write: &mut FigureWriter<'_>) {
    let Some(cpu) = guest.cpu else { return };
    for (mode, ms) in [
        ("user", cpu.user_ms),
        ("nice", cpu.nice_ms),
        ("system", cpu.system_ms),
        ("idle", cpu.idle_ms),
        ("iowait", cpu.iowait_ms),
        ("irq", cpu.irq_ms),
        ("softirq", cpu.softirq_ms),
        ("steal", cpu.steal_ms),
    ] {
        write(&[("mode", mode)], seconds(ms));
    }
}

fn loads(guest: &GuestSample, write: &mut FigureWriter<'_>) {
    let Some(load) = guest.load else { return };
    for (minutes, value) in [("1", load.one), ("5", load.five), ("15", load.fifteen)] {
        write(&[("minutes", minutes)], value);
    }
}

fn pressures(guest: &GuestSample, write: &mut FigureWriter<'_>) {
    let Some(pressure) = guest.pressure else { return };
    for (resource, tasks, us) in [
        ("cpu", "some", pressure.cpu_some_us),
        ("memory", "some", pressure.memory_some_us),
        ("memory", "full", pressure.memory_full_us),
        ("io", "some", pressure.io_some_us),
        ("io", "full", pressure.io_full_us),
    ] {
        write(&[("resource", resource), ("tasks", tasks)], number(us) / 1e6);
    }
}

fn filesystems(
    guest: &GuestSample,
    write: &mut FigureWriter<'_>,
    figure: fn(&Filesystem) -> Option<u64>,
) {
    for one in guest.filesystems.iter().flatten() {
        let labels = [
            ("mountpoint", &*one.mount_point),
            ("fstype", &*one.fs_type),
            ("device", &*one.source),
        ];
        if let Some(figure) = figure(one) {
            write(&labels, number(figure));
        }
    }
}

fn disks(guest: &GuestSample, write: &mut FigureWriter<'_>, figure: fn(&DiskCounters) -> f64) {
    for disk in guest.disks.iter().flatten() {
        write(&[("device", &disk.name)], figure(disk));
    }
}

fn interfaces(
    guest: &GuestSample,
    write: &mut FigureWriter<'_>,
    figures: fn(&InterfaceCounters) -> [u64; 2],
) {
    for one in guest.interfaces.iter().flatten() {
        for (direction, figure) in ["receive", "send"].into_iter().zip(figures(one)) {
            write(&[("interface", &one.name), ("direction", direction)], number(figure));
        }
    }
}

fn threads(guest: &GuestSample, write: &mut FigureWriter<'_>) {
    let Some(counts) = guest.processes else { return };
    for (state, count) in
        [("all", counts.threads), ("running", counts.running), ("blocked", counts.blocked)]
    {
        write(&[("state", state)], f64::from(count));
    }
}

/// Converts a counter as Prometheus keeps it. Above 2^53, the last digits are lost.
fn number(counter: u64) -> f64 {
    counter as f64
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1e3
}
