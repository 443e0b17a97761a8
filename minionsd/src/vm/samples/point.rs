//! Point of a series: the figures of one time in 64 bytes, because a daemon keeps an hour of them for each of thousands of VMs.

use minions_api::Timestamp;
use minions_api::samples::SamplePoint;
use minions_proto::message::{CpuTimes, DiskCounters, GuestSample, InterfaceCounters};
use std::collections::BTreeMap;
use std::time::Duration;

/// Beginnings of the names of disks that are made of other disks or of memory: their bytes are counted there, or nowhere.
const STACKED_DISKS: [&str; 4] = ["dm-", "md", "loop", "zram"];

/// Beginnings of the names of interfaces whose bytes are also counted at another interface, and of the loopback.
const STACKED_INTERFACES: [&str; 12] =
    ["lo", "veth", "br", "virbr", "docker", "bond", "team", "tun", "tap", "wg", "vxlan", "cni"];

/// Share of a whole in hundredths of a percent; absent above 100 percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StoredPercent(u16);

impl StoredPercent {
    const NONE: Self = Self(u16::MAX);

    /// Returns the share of `part` in `whole`, at most 100 percent.
    fn of(part: u64, whole: u64) -> Self {
        let hundredths = u128::from(part.min(whole)) * 10_000 / u128::from(whole.max(1));
        u16::try_from(hundredths).map_or(Self::NONE, Self)
    }

    fn shown(self) -> Option<f64> {
        (self.0 <= 10_000).then(|| f64::from(self.0) / 100.0)
    }
}

/// Size in KiB; absent if it is `u32::MAX`. A guest with more than 4 TiB is shown with 4 TiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StoredSize(u32);

impl StoredSize {
    const NONE: Self = Self(u32::MAX);

    fn of(bytes: u64) -> Self {
        Self(u32::try_from(bytes / 1024).unwrap_or(u32::MAX - 1).min(u32::MAX - 1))
    }

    fn shown(self) -> Option<u64> {
        (self != Self::NONE).then(|| u64::from(self.0) * 1024)
    }
}

/// Figure that is not whole; absent if it is not a number. Seven digits are kept, and two decimals are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
struct StoredFigure(f32);

impl StoredFigure {
    const NONE: Self = Self(f32::NAN);

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a value beyond the range becomes infinite, and is not shown"
    )]
    fn of(value: Option<f64>) -> Self {
        value.map_or(Self::NONE, |value| Self(value as f32))
    }

    fn shown(self) -> Option<f64> {
        self.0.is_finite().then(|| (f64::from(self.0) * 100.0).round() / 100.0)
    }
}

/// Compact [`SamplePoint`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StoredPoint {
    pub(super) at_ms: u64,
    user: StoredPercent,
    system: StoredPercent,
    iowait: StoredPercent,
    steal: StoredPercent,
    filesystem: StoredPercent,
    cpu_pressure: StoredPercent,
    memory_pressure: StoredPercent,
    io_pressure: StoredPercent,
    memory_total: StoredSize,
    memory_available: StoredSize,
    swap_used: StoredSize,
    /// Number of threads; `u32::MAX` if it is unknown.
    threads: u32,
    load: StoredFigure,
    disk_read: StoredFigure,
    disk_write: StoredFigure,
    receive: StoredFigure,
    send: StoredFigure,
}

const _: () = assert!(size_of::<StoredPoint>() == 64);

impl StoredPoint {
    /// Creates the point of a sample. `before` is the sample before and the time between them, if both are of one boot.
    pub(super) fn of(
        sample: &GuestSample,
        at: Timestamp,
        before: Option<(&GuestSample, Duration)>,
    ) -> Self {
        let [user, system, iowait, steal] = cpu_shares(sample, before.map(|(before, _)| before));
        let [cpu_pressure, memory_pressure, io_pressure] = pressures(sample, before);
        let rate = |growth: fn(&GuestSample, &GuestSample) -> Option<u64>| {
            StoredFigure::of(before.and_then(|(before, elapsed)| {
                let grown = growth(before, sample)?;
                (!elapsed.is_zero()).then(|| grown as f64 / elapsed.as_secs_f64())
            }))
        };
        let memory = sample.memory;
        let size = |bytes: Option<u64>| bytes.map_or(StoredSize::NONE, StoredSize::of);
        Self {
            at_ms: milliseconds(at),
            user,
            system,
            iowait,
            steal,
            filesystem: fullest(sample),
            cpu_pressure,
            memory_pressure,
            io_pressure,
            memory_total: size(memory.map(|memory| memory.total_bytes)),
            memory_available: size(memory.map(|memory| memory.available_bytes)),
            swap_used: size(memory.map(|memory| memory.swap_used_bytes)),
            threads: sample.processes.map_or(u32::MAX, |processes| processes.threads),
            load: StoredFigure::of(sample.load.map(|load| load.one)),
            disk_read: rate(|before, now| disk_growth(before, now, |disk| disk.read_bytes)),
            disk_write: rate(|before, now| disk_growth(before, now, |disk| disk.written_bytes)),
            receive: rate(|before, now| network_growth(before, now, |one| one.rx_bytes)),
            send: rate(|before, now| network_growth(before, now, |one| one.tx_bytes)),
        }
    }

    /// Returns the point as REST shows it.
    pub(super) fn shown(&self) -> SamplePoint {
        SamplePoint {
            at: Timestamp(std::time::UNIX_EPOCH + Duration::from_millis(self.at_ms)),
            user_percent: self.user.shown(),
            system_percent: self.system.shown(),
            iowait_percent: self.iowait.shown(),
            steal_percent: self.steal.shown(),
            load: self.load.shown(),
            threads: (self.threads != u32::MAX).then_some(self.threads),
            memory_total_bytes: self.memory_total.shown(),
            memory_available_bytes: self.memory_available.shown(),
            swap_used_bytes: self.swap_used.shown(),
            filesystem_percent: self.filesystem.shown(),
            cpu_pressure_percent: self.cpu_pressure.shown(),
            memory_pressure_percent: self.memory_pressure.shown(),
            io_pressure_percent: self.io_pressure.shown(),
            disk_read_rate: self.disk_read.shown(),
            disk_write_rate: self.disk_write.shown(),
            receive_rate: self.receive.shown(),
            send_rate: self.send.shown(),
        }
    }
}

/// Returns a time in milliseconds since 1970.
pub(super) fn milliseconds(at: Timestamp) -> u64 {
    let since = at.0.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the shares of user, system, iowait and steal since the sample before.
fn cpu_shares(sample: &GuestSample, before: Option<&GuestSample>) -> [StoredPercent; 4] {
    let shares = || {
        let (now, before) = (sample.cpu?, before?.cpu?);
        let total = now.total_ms().checked_sub(before.total_ms()).filter(|total| *total > 0)?;
        let modes: [fn(&CpuTimes) -> u64; 4] = [
            |times| times.user_ms.saturating_add(times.nice_ms),
            |times| times.system_ms.saturating_add(times.irq_ms).saturating_add(times.softirq_ms),
            |times| times.iowait_ms,
            |times| times.steal_ms,
        ];
        // The kernel's time for I/O can decrease slightly.
        Some(modes.map(|mode| StoredPercent::of(mode(&now).saturating_sub(mode(&before)), total)))
    };
    shares().unwrap_or([StoredPercent::NONE; 4])
}

/// Returns the shares of the time in which some task waited for a processor, for memory and for a disk.
fn pressures(sample: &GuestSample, before: Option<(&GuestSample, Duration)>) -> [StoredPercent; 3] {
    let waited = || {
        let (before, elapsed) = before?;
        let (now, before) = (sample.pressure?, before.pressure?);
        let elapsed = u64::try_from(elapsed.as_micros()).ok()?;
        Some(
            [
                (now.cpu_some_us, before.cpu_some_us),
                (now.memory_some_us, before.memory_some_us),
                (now.io_some_us, before.io_some_us),
            ]
            .map(|(now, before)| match now.checked_sub(before) {
                Some(waited) if elapsed > 0 => StoredPercent::of(waited, elapsed),
                _ => StoredPercent::NONE,
            }),
        )
    };
    waited().unwrap_or([StoredPercent::NONE; 3])
}

/// Returns the use of the fullest filesystem to which something can be written.
fn fullest(sample: &GuestSample) -> StoredPercent {
    let filesystems = sample.filesystems.iter().flatten();
    let used = filesystems.filter(|one| !one.read_only && one.total_bytes > 0).map(|one| {
        // As df(1) shows it: what only root can write is not free.
        let usable = one.used_bytes.saturating_add(one.available_bytes);
        StoredPercent::of(one.used_bytes, usable).0
    });
    used.max().map_or(StoredPercent::NONE, StoredPercent)
}

fn disk_growth(
    before: &GuestSample,
    now: &GuestSample,
    counter: fn(&DiskCounters) -> u64,
) -> Option<u64> {
    let is_counted =
        |disk: &&DiskCounters| !STACKED_DISKS.iter().any(|stacked| disk.name.starts_with(stacked));
    let disks = |sample: &GuestSample| {
        let disks = sample.disks.as_ref()?.iter().filter(is_counted);
        Some(disks.map(|disk| (disk.name.clone(), counter(disk))).collect())
    };
    Some(growth(&disks(before)?, &disks(now)?))
}

fn network_growth(
    before: &GuestSample,
    now: &GuestSample,
    counter: fn(&InterfaceCounters) -> u64,
) -> Option<u64> {
    let is_counted = |one: &&InterfaceCounters| {
        let is_stacked = STACKED_INTERFACES.iter().any(|stacked| one.name.starts_with(stacked));
        // VLANs have a full stop.
        !is_stacked && !one.name.contains('.')
    };
    let interfaces = |sample: &GuestSample| {
        let interfaces = sample.interfaces.as_ref()?.iter().filter(is_counted);
        Some(interfaces.map(|one| (one.name.clone(), counter(one))).collect())
    };
    Some(growth(&interfaces(before)?, &interfaces(now)?))
}

/// Returns the sum of what the counters with names in both lists have grown by.
fn growth(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> u64 {
    let grown = now.iter().filter_map(|(name, now)| now.checked_sub(*before.get(name)?));
    grown.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::{Filesystem, Load, MemoryFigures, PressureTimes};

    fn sample(scale: u64) -> GuestSample {
        let times = CpuTimes {
            user_ms: 10 * scale,
            nice_ms: 5 * scale,
            system_ms: 3 * scale,
            irq_ms: scale,
            softirq_ms: scale,
            iowait_ms: 10 * scale,
            steal_ms: 20 * scale,
            idle_ms: 50 * scale,
        };
        let filesystem = |used_bytes, read_only| Filesystem {
            mount_point: "/".into(),
            fs_type: "ext4".into(),
            source: "/dev/vda".into(),
            total_bytes: 1000,
            used_bytes,
            available_bytes: 900 - used_bytes,
            read_only,
            inodes_total: None,
            inodes_used: None,
        };
        let network = |name: &str| InterfaceCounters {
            name: name.into(),
            rx_bytes: 1000 * scale,
            tx_bytes: 10 * scale,
            ..InterfaceCounters::default()
        };
        let disk = |name: &str| DiskCounters {
            name: name.into(),
            read_bytes: 4096 * scale,
            ..DiskCounters::default()
        };
        GuestSample {
            uptime_ms: scale * 1000,
            cpu: Some(times),
            load: Some(Load { one: 0.52, five: 0.0, fifteen: 0.0 }),
            memory: Some(MemoryFigures {
                total_bytes: 10_240,
                available_bytes: 5_121,
                ..MemoryFigures::default()
            }),
            pressure: Some(PressureTimes {
                cpu_some_us: 500_000 * scale,
                io_some_us: 9_000_000 * scale,
                ..PressureTimes::default()
            }),
            filesystems: Some(vec![filesystem(225, false), filesystem(900, true)]),
            disks: Some(["vda", "dm-0"].map(disk).into()),
            interfaces: Some(["lo", "eth0", "eth1", "eth1.5", "docker0"].map(network).into()),
            ..GuestSample::default()
        }
    }

    const AT: Timestamp = Timestamp(std::time::UNIX_EPOCH);

    #[test]
    fn shares_and_rates_cover_the_time_since_the_sample_before() {
        let (before, now) = (sample(10), sample(12));
        let point = StoredPoint::of(&now, AT, Some((&before, Duration::from_secs(2)))).shown();
        let shares =
            [point.user_percent, point.system_percent, point.iowait_percent, point.steal_percent];
        assert_eq!(shares, [Some(15.0), Some(5.0), Some(10.0), Some(20.0)]);
        assert_eq!(
            (point.cpu_pressure_percent, point.memory_pressure_percent),
            (Some(50.0), Some(0.0))
        );
        assert_eq!(point.io_pressure_percent, Some(100.0), "more than the elapsed time");
        assert_eq!((point.disk_read_rate, point.disk_write_rate), (Some(4096.0), Some(0.0)));
        assert_eq!((point.receive_rate, point.send_rate), (Some(2000.0), Some(20.0)));
        let mut hotplugged = now.clone();
        hotplugged.disks.as_mut().unwrap()[0].name = "vdb".into();
        let point =
            StoredPoint::of(&hotplugged, AT, Some((&before, Duration::from_secs(2)))).shown();
        assert_eq!(point.disk_read_rate, Some(0.0), "nothing is known of the time before");
        assert_eq!((point.load, point.filesystem_percent), (Some(0.52), Some(25.0)));
        assert_eq!(
            (point.memory_total_bytes, point.memory_available_bytes),
            (Some(10_240), Some(5_120))
        );
        assert_eq!(point.at, AT);
    }

    #[test]
    fn a_first_sample_and_counters_that_fall_have_no_rates() {
        let (lower, higher) = (sample(10), sample(12));
        let elapsed = Duration::from_secs(2);
        for before in [None, Some((&higher, elapsed)), Some((&lower, Duration::ZERO))] {
            let mut now = lower.clone();
            now.cpu = before.map_or(now.cpu, |_| Some(CpuTimes::default()));
            let point = StoredPoint::of(&now, AT, before).shown();
            assert_eq!((point.user_percent, point.cpu_pressure_percent), (None, None));
            assert!(point.disk_read_rate.is_none_or(|rate| rate == 0.0), "{point:?}");
            assert_eq!(point.memory_available_bytes, Some(5_120));
        }
        let nothing = StoredPoint::of(&GuestSample::default(), AT, None).shown();
        assert_eq!((nothing.threads, nothing.load, nothing.memory_total_bytes), (None, None, None));
        assert_eq!(nothing.filesystem_percent, None);
    }

    #[test]
    fn absurd_figures_stay_within_their_bounds() {
        let mut now = sample(u64::MAX / 10_000_000);
        now.load = Some(Load { one: 1e300, five: -1.0, fifteen: 0.0 });
        now.memory = Some(MemoryFigures { total_bytes: u64::MAX, ..MemoryFigures::default() });
        if let Some(filesystems) = &mut now.filesystems {
            let huge = Filesystem {
                used_bytes: u64::MAX,
                available_bytes: u64::MAX,
                ..filesystems[0].clone()
            };
            filesystems.push(huge);
        }
        let before = sample(0);
        let point = StoredPoint::of(&now, AT, Some((&before, Duration::from_nanos(1)))).shown();
        assert_eq!(point.load, None);
        assert_eq!(point.memory_total_bytes, Some(u64::from(u32::MAX - 1) * 1024));
        assert!(point.filesystem_percent.is_some_and(|percent| percent <= 100.0));
        assert!(point.receive_rate.is_none_or(f64::is_finite));
    }
}
