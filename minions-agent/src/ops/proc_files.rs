//! Files of `/proc` with one fact in each line (proc(5)).

use minions_proto::message::Load;
use std::fs;

/// Number of modes that are counted apart.
const MODES: usize = 8;

/// Clock ticks since boot, summed over all processors, and the number of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTicks {
    /// Ticks in the modes user, nice, system, idle, iowait, irq, softirq and steal.
    pub(super) modes: [u64; MODES],
    /// Number of processors that are online.
    pub(super) cpus: u32,
}

impl CpuTicks {
    pub(super) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// Parses the lines `cpu  USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL GUEST GUEST_NICE` and `cpu0 …`. Guest time is
    /// included in user time already. Old kernels have fewer columns.
    fn parse(stat: &str) -> Option<Self> {
        let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = all.split_whitespace().take(MODES).map_while(number).collect();
        // Idle, which the first kernels had already.
        let _idle = ticks.get(3)?;
        let mut modes = [0; MODES];
        modes.iter_mut().zip(ticks).for_each(|(mode, ticks)| *mode = ticks);
        let is_cpu = |line: &&str| {
            let rest = line.strip_prefix("cpu");
            rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        let cpus = u32::try_from(stat.lines().filter(is_cpu).count()).ok()?;
        Some(Self { modes, cpus })
    }

    /// Returns the ticks without work. Waiting for I/O counts as idle.
    pub(super) fn idle(&self) -> u64 {
        let [_, _, _, idle, iowait, ..] = self.modes;
        idle.saturating_add(iowait)
    }

    /// Returns the ticks in all modes.
    pub(super) fn total(&self) -> u64 {
        self.modes.into_iter().fold(0, u64::saturating_add)
    }
}

/// Memory of the guest, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GuestMemory {
    pub(super) total: u64,
    /// Memory that new programs can get without swapping.
    pub(super) available: u64,
    pub(super) swap_total: u64,
    pub(super) swap_free: u64,
}

impl GuestMemory {
    pub(super) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/meminfo").ok()?)
    }

    /// Parses lines such as `MemTotal:  1000000 kB`.
    fn parse(meminfo: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value?.split_whitespace().next().and_then(number)?.checked_mul(1024)
        };
        Some(Self {
            total: bytes("MemTotal")?,
            // Kernels before 3.14 do not estimate it.
            available: bytes("MemAvailable").or_else(|| bytes("MemFree"))?,
            swap_total: bytes("SwapTotal")?,
            swap_free: bytes("SwapFree")?,
        })
    }
}

/// Load averages, and the threads of which they are computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LoadFile {
    pub(super) load: Load,
    /// Threads that run or could run.
    pub(super) running: u32,
    /// Threads that exist.
    pub(super) threads: u32,
}

impl LoadFile {
    pub(super) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/loadavg").ok()?)
    }

    /// Parses `0.52 1.00 12.34 1/234 5678`.
    fn parse(loadavg: &str) -> Option<Self> {
        let mut fields = loadavg.split_whitespace();
        let mut next = || fields.next()?.parse().ok().filter(|average: &f64| average.is_finite());
        let load = Load { one: next()?, five: next()?, fifteen: next()? };
        let (running, threads) = fields.next()?.split_once('/')?;
        Some(Self { load, running: running.parse().ok()?, threads: threads.parse().ok()? })
    }
}

pub(super) fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_summed_and_processors_are_counted() {
        let stat =
            "cpu  100 20 30 1000 50 1 2 3 90 10\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 9\ncpufreq 1\n";
        let ticks = CpuTicks::parse(stat).unwrap();
        assert_eq!(ticks, CpuTicks { modes: [100, 20, 30, 1000, 50, 1, 2, 3], cpus: 2 });
        assert_eq!((ticks.idle(), ticks.total()), (1050, 1206));
        let old = CpuTicks::parse("cpu  1 2 3 4\n").unwrap();
        assert_eq!((old.idle(), old.total(), old.cpus), (4, 10, 0));
        assert_eq!(CpuTicks::parse("cpu  1 2 3\n"), None);
    }

    #[test]
    fn memory_is_in_bytes_and_old_kernels_do_not_estimate_what_is_available() {
        let meminfo = |available: &str| {
            GuestMemory::parse(&format!(
                "MemTotal:        1000 kB\nMemFree:  300 kB\n{available}SwapCached: 7 kB\nSwapTotal: 20 kB\n\
                 SwapFree: 10 kB\n"
            ))
        };
        let memory = meminfo("MemAvailable: 400 kB\n").unwrap();
        assert_eq!((memory.total, memory.available), (1_024_000, 409_600));
        assert_eq!((memory.swap_total, memory.swap_free), (20_480, 10_240));
        assert_eq!(meminfo("").unwrap().available, 307_200);
        assert_eq!(GuestMemory::parse("MemTotal: x kB\n"), None);
    }

    #[test]
    fn load_averages_are_followed_by_the_threads() {
        let load = Load { one: 0.52, five: 1.0, fifteen: 12.34 };
        let file = LoadFile { load, running: 1, threads: 234 };
        assert_eq!(LoadFile::parse("0.52 1.00 12.34 1/234 5678\n"), Some(file));
        for text in ["", "0.5 1", "0.5 NaN 1.0 1/2 3", "a b c", "1 2 3", "1 2 3 4", "1 2 3 -1/2"] {
            assert_eq!(LoadFile::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_files_of_this_machine_are_understood() {
        assert!(
            CpuTicks::now().is_some_and(|ticks| ticks.cpus > 0 && ticks.total() > ticks.idle())
        );
        assert!(GuestMemory::now().is_some_and(|memory| memory.total >= memory.available));
        assert!(LoadFile::now().is_some_and(|load| load.threads >= load.running));
    }
}
