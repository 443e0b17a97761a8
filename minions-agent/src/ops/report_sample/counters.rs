//! Files of `/proc` with the counters of devices and of the kernel (proc(5), and Documentation/accounting/psi.rst of the
//! kernel).

use super::super::proc_files::number;
use super::MAX_LISTED;
use minions_proto::message::{DiskCounters, InterfaceCounters, PressureTimes};
use rustix::param::page_size;
use std::fs;
use std::path::Path;

/// Bytes of a sector in `/proc/diskstats`, whatever the device's own sectors are.
const SECTOR: u64 = 512;

/// Returns the times for which work waited; `None` if the kernel does not measure them.
pub(super) fn pressure() -> Option<PressureTimes> {
    let read = |resource: &str| fs::read_to_string(format!("/proc/pressure/{resource}")).ok();
    let (cpu, memory, io) = (read("cpu")?, read("memory")?, read("io")?);
    let total = |text: &str, who| waited(text, who).unwrap_or(0);
    Some(PressureTimes {
        cpu_some_us: total(&cpu, "some"),
        memory_some_us: total(&memory, "some"),
        memory_full_us: total(&memory, "full"),
        io_some_us: total(&io, "some"),
        io_full_us: total(&io, "full"),
    })
}

/// Parses lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`.
fn waited(pressure: &str, who: &str) -> Option<u64> {
    let mut lines = pressure.lines();
    let line = lines.find_map(|line| line.strip_prefix(who)?.strip_prefix(' '))?;
    line.split_whitespace().find_map(|field| field.strip_prefix("total=")).and_then(number)
}

/// Returns the counters of the block devices that were used.
pub(super) fn disks() -> Option<Vec<DiskCounters>> {
    let diskstats = fs::read_to_string("/proc/diskstats").ok()?;
    let is_whole = |disk: &DiskCounters| {
        // A partition is a directory below that of its device.
        Path::new("/sys/block").join(disk.name.replace('/', "!")).exists()
    };
    Some(diskstats.lines().filter_map(disk).filter(is_whole).take(MAX_LISTED).collect())
}

/// Parses `MAJOR MINOR NAME READS MERGED SECTORS MS WRITES MERGED SECTORS MS IN_FLIGHT BUSY_MS WEIGHTED_MS …`. Returns
/// `None` for a device that was never used, such as most loop devices.
fn disk(line: &str) -> Option<DiskCounters> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let figure = |index: usize| fields.get(index).copied().and_then(number);
    let (reads, writes) = (figure(3)?, figure(7)?);
    (reads > 0 || writes > 0).then_some(())?;
    Some(DiskCounters {
        name: (*fields.get(2)?).to_owned(),
        reads,
        read_bytes: figure(5)?.saturating_mul(SECTOR),
        writes,
        written_bytes: figure(9)?.saturating_mul(SECTOR),
        busy_ms: figure(12)?,
    })
}

/// Returns the counters of the network interfaces.
pub(super) fn interfaces() -> Option<Vec<InterfaceCounters>> {
    let dev = fs::read_to_string("/proc/self/net/dev").ok()?;
    Some(dev.lines().filter_map(interface).take(MAX_LISTED).collect())
}

/// Parses `NAME: BYTES PACKETS ERRORS DROPPED FIFO FRAME COMPRESSED MULTICAST`, for received, then for sent data. The two
/// lines of headings have no numbers.
fn interface(line: &str) -> Option<InterfaceCounters> {
    // A name cannot contain spaces, but an alias has a colon.
    let (name, figures) = line.rsplit_once(':')?;
    let figures: Vec<_> = figures.split_whitespace().map_while(number).collect();
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = *figures.as_slice()
    else {
        return None;
    };
    let name = name.trim().to_owned();
    Some(InterfaceCounters {
        name,
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

/// Returns the number of threads that wait for a disk.
pub(super) fn blocked_threads() -> Option<u32> {
    let blocked = named_number(&fs::read_to_string("/proc/stat").ok()?, "procs_blocked")?;
    u32::try_from(blocked).ok()
}

/// Returns the number of processes that were ended for lack of memory. Kernels before 4.13 do not count them.
pub(super) fn oom_kills() -> Option<u64> {
    named_number(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

/// Returns the number in the line `NAME NUMBER`.
fn named_number(text: &str, name: &str) -> Option<u64> {
    number(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?)
}

/// Returns the resident memory of this process, in bytes.
pub(super) fn own_memory() -> Option<u64> {
    // `SIZE RESIDENT …`, in pages.
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages = statm.split_whitespace().nth(1).and_then(number)?;
    pages.checked_mul(u64::try_from(page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_waited_is_the_total_of_its_line() {
        let text = "some avg10=1.00 avg60=0.50 avg300=0.10 total=2345\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=17\n";
        assert_eq!((waited(text, "some"), waited(text, "full")), (Some(2345), Some(17)));
        // Kernels before 5.13 have no line for "full" of the processors.
        assert_eq!(waited("some avg10=0.00 total=9\n", "full"), None);
        assert_eq!(waited("some avg10=0.00\n", "some"), None);
    }

    #[test]
    fn disks_are_counted_in_bytes_and_unused_ones_are_left_out() {
        let vda = disk(" 254  0 vda 100 5 2000 30 40 6 800 20 0 45 50 0 0 0 0 0 0").unwrap();
        assert_eq!((vda.name.as_str(), vda.reads, vda.writes), ("vda", 100, 40));
        assert_eq!((vda.read_bytes, vda.written_bytes, vda.busy_ms), (1_024_000, 409_600, 45));
        for line in
            ["7 0 loop0 0 0 0 0 0 0 0 0 0 0 0", "254 0 vda 100", "", "254 0 vda x 5 2000 30"]
        {
            assert_eq!(disk(line), None, "{line}");
        }
    }

    #[test]
    fn interfaces_have_four_counters_in_each_direction() {
        let eth0 = interface("  eth0: 1 2 3 4 50 60 70 80 5 6 7 8 90 91 92 93").unwrap();
        assert_eq!((eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped), (1, 2, 3, 4));
        assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped), (5, 6, 7, 8));
        assert_eq!(interface("eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 0 0 0 0").unwrap().name, "eth0:1");
        for line in ["Inter-|   Receive   |  Transmit", " face |bytes packets", "eth0: 1 2 3", ""] {
            assert_eq!(interface(line), None, "{line}");
        }
    }

    #[test]
    fn named_numbers_are_found_by_their_whole_name() {
        let text = "oom_kill_other 5\noom_kill 7\nprocs_blocked x\n";
        assert_eq!(named_number(text, "oom_kill"), Some(7));
        assert_eq!(named_number(text, "procs_blocked"), None);
        assert_eq!(named_number(text, "oom"), None);
    }

    #[test]
    fn the_files_of_this_machine_are_understood() {
        assert!(interfaces().is_some_and(|all| all.iter().any(|one| one.name == "lo")));
        assert!(disks().is_some() && oom_kills().is_some() && blocked_threads().is_some());
        assert!(own_memory().is_some_and(|bytes| bytes > 100_000));
    }
}
