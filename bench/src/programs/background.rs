//! A program that runs in the background while a benchmark measures.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use testkit::rig::wait_until;

use super::foreground::tail;

/// Deadline for the start of a program; long enough for a very busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Deadline for the end of a program after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Running program. Stopped when dropped, and killed when this process ends.
#[derive(Debug)]
pub(crate) struct BackgroundProgram {
    child: Child,
    log: PathBuf,
}

impl BackgroundProgram {
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
            .with_context(|| format!("cannot start {command:?}"))?;
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

impl Drop for BackgroundProgram {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_program_that_ends_early_contains_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing; exit 3"]);
        let mut program = BackgroundProgram::spawn(&command, &dir.path().join("log")).unwrap();
        let error = program.wait_until("it serves", || None::<()>).unwrap_err().to_string();
        assert!(error.contains("it serves") && error.contains("no such thing"), "{error}");
    }
}
