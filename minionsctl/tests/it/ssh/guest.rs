//! A VM for the SSH client of the system.

use crate::exec::guest::Guest;
use crate::shared::command::Ran;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Time limit in seconds: long enough for a very busy machine, and not reached by a test that passes.
const LIMIT: &str = "120";

/// A VM, and a configuration file of ssh that `minionsctl ssh-config` has printed.
pub(super) struct SshGuest {
    pub(super) guest: Guest,
    pub(super) config: PathBuf,
}

impl SshGuest {
    pub(super) async fn start() -> Self {
        Self::of(Guest::start().await)
    }

    pub(super) fn of(guest: Guest) -> Self {
        let config = guest.file("ssh_config");
        let this = Self { guest, config };
        fs::write(&this.config, &this.ran(&["ssh-config"]).stdout).unwrap();
        this
    }

    /// Returns a command for minionsctl whose host key is a file of this test.
    pub(super) fn ctl(&self, args: &[&str]) -> Command {
        let mut command = self.guest.ctl(args);
        command.env("XDG_STATE_HOME", self.state());
        command
    }

    #[track_caller]
    fn ran(&self, args: &[&str]) -> Ran {
        let ran = Ran::of(&mut self.ctl(args));
        ran.assert(0, "", "");
        ran
    }

    fn state(&self) -> PathBuf {
        self.guest.file("state")
    }

    /// Returns a command for ssh, without input.
    pub(super) fn ssh(&self, args: &[&str]) -> Command {
        self.client("ssh", &[&["-F", self.config.to_str().unwrap()], args].concat())
    }

    /// Returns a command for ssh, without input, that is ended after [`LIMIT`] seconds with the exit code 124.
    pub(super) fn limited_ssh(&self, args: &[&str]) -> Command {
        let config = self.config.to_str().unwrap();
        self.client("timeout", &[&["--kill-after=5", LIMIT, "ssh", "-F", config], args].concat())
    }

    /// Returns a command for a program that starts ssh, without input.
    pub(super) fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("XDG_STATE_HOME", self.state()).stdin(Stdio::null());
        command.env("XDG_CONFIG_HOME", "/nonexistent").env_remove("MINIONS_HOST");
        command
    }

    /// Returns the command line of ssh for a program that starts it.
    pub(super) fn command_line(&self) -> String {
        format!("ssh -F {}", self.config.display())
    }

    /// Runs a command in the guest.
    #[track_caller]
    pub(super) fn run(&self, command: &str) -> Ran {
        Ran::of(&mut self.limited_ssh(&["web-1.minions", "--", command]))
    }
}
