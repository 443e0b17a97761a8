//! Files of `/proc` with one fact in each line (proc(5)).

use std::fs;

/// Clock ticks since boot, summed over all processors, and the number of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTicks {
    /// Ticks without work. Waiting for I/O counts as idle.
    pub(super) idle: u64,
    pub(super) total: u64,
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
        let ticks: Vec<u64> = all.split_whitespace().take(8).map_while(number).collect();
        let idle = ticks.get(3)?.saturating_add(ticks.get(4).copied().unwrap_or(0));
        let total = ticks.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks));
        let is_cpu = |line: &&str| {
            let rest = line.strip_prefix("cpu");
            rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        let cpus = u32::try_from(stat.lines().filter(is_cpu).count()).ok()?;
        Some(Self { idle, total, cpus })
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

/// Returns the load averages of one, five and fifteen minutes.
pub(super) fn load_averages() -> Option<[f64; 3]> {
    parse_load(&fs::read_to_string("/proc/loadavg").ok()?)
}

fn parse_load(loadavg: &str) -> Option<[f64; 3]> {
    let mut averages = loadavg.split_whitespace().map(|average| average.parse().ok());
    let mut next = || averages.next().flatten().filter(|average: &f64| average.is_finite());
    Some([next()?, next()?, next()?])
}

fn number(text: &str) -> Option<u64> {
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
        assert_eq!(ticks, CpuTicks { idle: 1050, total: 1206, cpus: 2 });
        let old = CpuTicks::parse("cpu  1 2 3 4\n").unwrap();
        assert_eq!((old.idle, old.total, old.cpus), (4, 10, 0));
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
    fn load_averages_are_the_first_three_numbers() {
        assert_eq!(parse_load("0.52 1.00 12.34 1/234 5678\n"), Some([0.52, 1.0, 12.34]));
        for text in ["", "0.5 1", "0.5 NaN 1.0", "a b c"] {
            assert_eq!(parse_load(text), None, "{text}");
        }
    }

    #[test]
    fn the_files_of_this_machine_are_understood() {
        assert!(CpuTicks::now().is_some_and(|ticks| ticks.cpus > 0 && ticks.total > ticks.idle));
        assert!(GuestMemory::now().is_some_and(|memory| memory.total >= memory.available));
        assert!(load_averages().is_some());
    }
}
