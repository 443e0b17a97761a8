//! A program that runs in the background while a bench measures, and the kernel's figures about it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Signal, kill_process},
};
use testkit::rig::wait_until;

use crate::command::{line, tail};

/// Deadline for the start of a program; long enough for a very busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Deadline for the end of a program after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Running program. Stopped when dropped, and killed when this process ends.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `command`; its output goes to `log`.
    pub(crate) fn spawn(command: &Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        bound.args(command.get_args()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            bound.env(name, value.unwrap_or_default());
        }
        let child = bound
            .stdout(out.try_clone().context("cannot share a log")?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start `{}`", line(command)))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until `condition` returns a value, as long as the program runs.
    pub(crate) fn wait_until<T>(
        &mut self,
        what: &str,
        mut condition: impl FnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut ended = None;
        let waited = wait_until(what, START_TIMEOUT, || {
            ended = self.child.try_wait().ok().flatten();
            Ok(match ended {
                Some(_) => Some(None),
                None => condition().map(Some),
            })
        });
        match waited {
            Ok(Some(value)) => Ok(value),
            Ok(None) => bail!(
                "{what}: the program ended ({ended:?}); its log ends with:\n{}",
                self.log_tail()
            ),
            Err(error) => Err(error).context(self.log_tail()),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log_tail(&self) -> String {
        tail(&String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // SIGTERM first: on SIGKILL, nginx and sshd would not end their child processes.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let ended =
            wait_until("a program ends", STOP_TIMEOUT, || Ok(self.child.try_wait().ok().flatten()));
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Resources used by a process and its current children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_mb: f64,
    pub(crate) cpu: Duration,
}

impl Usage {
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
    fn the_error_of_a_program_that_ends_early_contains_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing; exit 3"]);
        let mut program = Background::spawn(&command, &dir.path().join("log")).unwrap();
        let error = program.wait_until("it serves", || None::<()>).unwrap_err().to_string();
        assert!(error.contains("it serves") && error.contains("no such thing"), "{error}");
    }

    #[test]
    fn the_usage_of_this_process_is_read() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_mb > 0.1, "{usage:?}");
    }
}
