//! The guest, minionsd, and the commands that run against them.

use std::{
    env, fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tempfile::TempDir;
use testkit::rig::{Artifacts, Vm, VmConfig, wait_until};

use crate::{
    command,
    demo::{daemon::DemoDaemon, socket_dir},
    workspace::Workspace,
};

pub(super) const VM: &str = "web-1";

/// Deadline for a boot, which takes about ten seconds; long enough for a very busy machine.
pub(super) const BOOT: Duration = Duration::from_secs(240);

/// Scripts of the checks, and the files that they use; written into a directory, where each has its name.
const SCRIPTS: [(&str, &str); 10] = [
    ("ansible.sh", include_str!("scripts/ansible.sh")),
    ("big.sh", include_str!("scripts/big.sh")),
    ("clients.py", include_str!("scripts/clients.py")),
    ("common.sh", include_str!("scripts/common.sh")),
    ("forward.sh", include_str!("scripts/forward.sh")),
    ("guest.sh", include_str!("scripts/guest.sh")),
    ("servers.py", include_str!("scripts/servers.py")),
    ("ssh.sh", include_str!("scripts/ssh.sh")),
    ("terminal.py", include_str!("scripts/terminal.py")),
    ("tree.sh", include_str!("scripts/tree.sh")),
];

/// Running guest and daemon. The fields are dropped in the order in which they must end.
#[derive(Debug)]
pub(super) struct ClientGuest {
    daemon: Option<DemoDaemon>,
    pub(super) vm: Vm,
    sockets: TempDir,
    programs: PathBuf,
    /// Directories for `PATH` and for the results of the checks.
    ansible: PathBuf,
    work: PathBuf,
}

impl ClientGuest {
    /// Installs the agent in a copy of the image, boots it, starts minionsd, and checks that the guest has neither an
    /// SSH server nor an address. Returns the figures of this too.
    pub(super) fn start(
        workspace: &Workspace,
        programs: PathBuf,
        ansible: PathBuf,
    ) -> anyhow::Result<(Self, String)> {
        let work = workspace.target().join("clients");
        remove(&work)?;
        fs::create_dir_all(work.join("scripts"))?;
        for (name, text) in SCRIPTS {
            fs::write(work.join("scripts").join(name), text)?;
        }
        let disk = work.join("disk.ext4");
        let image = workspace.rig().clients_debian();
        command::run(Command::new("cp").arg("--sparse=always").args([&image, &disk]))?;
        let mut install = Command::new(workspace.root().join("deploy/install-agent"));
        command::run(install.arg("--agent").arg(workspace.rig().agent()).arg(&disk))?;

        let sockets = socket_dir()?;
        let config = VmConfig {
            // A reset must boot the guest again.
            reboot_ends: false,
            nics: 0,
            memory_mib: 1024,
            ..VmConfig::with_disk(VM, sockets.path(), &disk)
        };
        let search_path = env::var_os("PATH").unwrap_or_default();
        let artifacts = Artifacts::locate_in(workspace.rig(), &search_path)?;
        let start = Instant::now();
        let vm = Vm::boot(&artifacts, config)?;
        let mut guest = Self { daemon: None, vm, sockets, programs, ansible, work };
        guest.start_daemon()?;
        guest.wait_ready()?;
        let boot = start.elapsed().as_secs_f64();
        let state = guest.script("guest")?;
        Ok((guest, format!("{state}, ready after {boot:.1} s, started")))
    }

    /// Starts minionsd, as an operator's init system does after [`Self::kill_daemon`].
    pub(super) fn start_daemon(&mut self) -> anyhow::Result<()> {
        let listen = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let program = self.programs.join("minionsd");
        let mut daemon = DemoDaemon::start(&program, listen, self.sockets.path())?;
        daemon.wait_until_listening()?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Starts minionsd if it does not run.
    pub(super) fn ensure_daemon(&mut self) -> anyhow::Result<()> {
        if self.daemon.is_none() { self.start_daemon() } else { Ok(()) }
    }

    /// Kills minionsd with SIGKILL.
    pub(super) fn kill_daemon(&mut self) {
        self.daemon = None;
    }

    pub(super) fn wait_ready(&self) -> anyhow::Result<()> {
        let limit = BOOT.as_secs().to_string();
        // A daemon that has just started may not have found the VM yet.
        wait_until("minionsd knows the VM", BOOT, || {
            Ok(command::run(self.ctl().args(["get", VM])).ok())
        })?;
        command::run(self.ctl().args(["wait", VM, "--timeout", &limit]))?;
        Ok(())
    }

    /// Returns a `minionsctl` for this daemon.
    pub(super) fn ctl(&self) -> Command {
        let mut command = Command::new(self.programs.join("minionsctl"));
        command.env("MINIONS_HOST", self.host()).stdin(Stdio::null());
        command
    }

    /// Runs a shell command in the guest, and returns its output without the last line break.
    pub(super) fn shell(&self, script: &str) -> anyhow::Result<String> {
        let output = command::run(self.ctl().args(["exec", VM, "sh", "-ec", script]))?;
        Ok(output.trim_end().to_owned())
    }

    /// Starts the servers of `servers.py` in the guest, if they do not run.
    pub(super) fn start_servers(&self) -> anyhow::Result<()> {
        let mut bash = self.bash(&self.work)?;
        command::run(bash.args(["-c", r#". "$SCRIPTS/common.sh"; start_servers"#]))?;
        Ok(())
    }

    /// Returns an empty directory for the results of a check.
    pub(super) fn work(&self, check: &str) -> anyhow::Result<PathBuf> {
        let dir = self.work.join(check);
        remove(&dir)?;
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Runs a script in a directory of its own, and returns the line that it prints: its figures. A failure contains
    /// the end of the script's trace.
    pub(super) fn script(&self, check: &str) -> anyhow::Result<String> {
        let dir = self.work(check)?;
        let mut bash = self.bash(&dir)?;
        bash.arg(self.work.join("scripts").join(format!("{check}.sh")));
        let figures = command::run(&mut bash)?;
        if figures.trim().is_empty() {
            bail!("{check}.sh printed no figures");
        }
        remove(&dir)?;
        Ok(figures.trim_end().to_owned())
    }

    /// Returns a `bash` with the environment of the scripts.
    fn bash(&self, dir: &Path) -> anyhow::Result<Command> {
        let daemon = self.daemon.as_ref().context("minionsd does not run")?;
        let others = env::var_os("PATH").unwrap_or_default();
        let path = [self.programs.clone(), self.ansible.clone()];
        let path = env::join_paths(path.into_iter().chain(env::split_paths(&others)))?;
        let mut bash = Command::new("bash");
        bash.current_dir(dir).env("PATH", path).env("SCRIPTS", self.work.join("scripts"));
        bash.env("VM", VM).env("MINIONS_HOST", self.host()).env("DAEMON", daemon.pid().to_string());
        bash.env("XDG_STATE_HOME", dir.join("state")).env("TMPDIR", dir).env("LC_ALL", "C");
        // An SSH agent or a helper of the user must not change the result.
        bash.env_remove("SSH_AUTH_SOCK").env_remove("SSH_ASKPASS");
        Ok(bash)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.sockets.path().join("minionsd.sock").display())
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
