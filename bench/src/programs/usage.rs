//! The kernel's figures about a process.

use std::{fs, time::Duration};

use anyhow::Context;
use rustix::param::clock_ticks_per_second;

/// Resources used by a process and its current children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessUsage {
    pub(crate) rss_mb: f64,
    pub(crate) cpu: Duration,
}

impl ProcessUsage {
    /// Returns the usage of `pid` and its children (nginx does its work in them).
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut usage = Self::alone(pid)?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            // A child may have just ended; it no longer counts.
            if let Ok(child) = child.parse().map_err(Into::into).and_then(Self::alone) {
                usage.rss_mb += child.rss_mb;
                usage.cpu += child.cpu;
            }
        }
        Ok(usage)
    }

    /// Returns the usage of `pid` without its children.
    pub(crate) fn alone(pid: u32) -> anyhow::Result<Self> {
        let read = |file| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        let rss_kib = field_of_status(&status, "VmRSS").context("no VmRSS")?;
        let ticks = cpu_ticks(&stat).context("no times in /proc/…/stat")?;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let (rss_mb, seconds) = (rss_kib as f64 * 1024.0 / 1e6, ticks as f64 / ticks_per_second());
        Ok(Self { rss_mb, cpu: Duration::from_secs_f64(seconds) })
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is 100")]
fn ticks_per_second() -> f64 {
    clock_ticks_per_second() as f64
}

/// Returns the number after `name:` in `/proc/PID/status`.
fn field_of_status(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.strip_prefix(name).is_some_and(is_value))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn is_value(rest: &str) -> bool {
    rest.starts_with(':')
}

/// Returns the sum of `utime` and `stime` in `/proc/PID/stat`: the 14th and 15th field. The second field, the
/// program's name in parentheses, may contain any character.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_after_a_name_with_parentheses_and_spaces() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 7 5 0 0 20 0 4 0 100";
        assert_eq!(cpu_ticks(stat), Some(12));
        assert_eq!(cpu_ticks("42 (a) S"), None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "VmRSSX:\t 1 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!(field_of_status(status, "VmRSS"), Some(2048));
        assert_eq!(field_of_status(status, "Vm"), None);
    }

    #[test]
    fn the_usage_of_this_process_is_read() {
        let usage = ProcessUsage::of(std::process::id()).unwrap();
        assert!(usage.rss_mb > 0.1, "{usage:?}");
    }
}
