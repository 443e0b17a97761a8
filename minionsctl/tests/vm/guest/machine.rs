//! A guest with its disk, and helpers to run programs in it with minionsctl, without minionsd.

use crate::boot::boot;
use crate::shared::command::direct;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use testkit::rig::{Guest, Layout, Vm, VmConfig, debian, wait_until};

/// Deadline for an event in such a guest.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// Uid and gid without rights on this machine.
const NOBODY: u32 = 65534;

/// Static network configuration, as an image builder may have left it.
const STATIC_NETWORK: &str =
    "[Match]\nName=e*\n[Network]\nAddress=10.99.99.99/24\nGateway=10.99.99.1\n";

/// A copy of the Debian image with the agent in it.
#[derive(Debug)]
pub(crate) struct Disk {
    // Dropping it removes the directory.
    _dir: TempDir,
    path: PathBuf,
}

impl Disk {
    /// Copies the image, and installs the agent as an unprivileged user, without a mount.
    pub(crate) fn installed() -> Self {
        let layout = Layout::from_env();
        let source = debian(&layout).unwrap_or_else(|error| panic!("{error}"));
        // In the directory of the source, which has room and may allow a reflink.
        let dir = tempfile::Builder::new().prefix("disk-").tempdir_in(layout.dir()).unwrap();
        let disk = Self { path: dir.path().join("root.ext4"), _dir: dir };
        let mut copy = Command::new("cp");
        run(copy.args(["--reflink=auto", "--sparse=always"]).arg(source).arg(&disk.path));
        disk.put(STATIC_NETWORK.as_bytes(), "/etc/systemd/network/10-vm.network", "0100644");
        disk.put(&fs::read(layout.probe()).unwrap(), "/usr/local/bin/vsock-probe", "0100755");
        for owned in [&disk.path, &disk.path.parent().unwrap().to_owned()] {
            chown(owned, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let plan = disk.install(&layout);
        assert!(plan.contains("move /etc/systemd/network/10-vm.network"), "{plan}");
        disk
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn install(&self, layout: &Layout) -> String {
        // The unprivileged user may not be able to read this checkout, so all inputs are copied.
        let kit = tempfile::Builder::new().prefix("kit-").tempdir().unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        run(Command::new("cp").arg("-r").arg(&deploy).arg(layout.agent()).arg(kit.path()));
        let disk = kit.path().join("root.ext4");
        run(Command::new("mv").arg(&self.path).arg(&disk));
        run(Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(kit.path()));
        let mut install = Command::new("setpriv");
        install
            .args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string()])
            .args(["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--"])
            .arg(kit.path().join("deploy/install-agent"))
            .arg("--agent")
            .arg(kit.path().join("minions-agent"))
            .arg(&disk);
        let output = run(&mut install);
        run(Command::new("mv").arg(&disk).arg(&self.path));
        String::from_utf8(output.stdout).unwrap()
    }

    fn put(&self, content: &[u8], path: &str, mode: &str) {
        let source = self.path.with_extension("part");
        fs::write(&source, content).unwrap();
        let (dir, name) = path.rsplit_once('/').unwrap();
        let commands = self.path.with_extension("commands");
        let text = format!(
            "cd {dir}\nwrite {} {name}\nsif {path} mode {mode}\nsif {path} uid 0\nsif {path} gid 0\n",
            source.display()
        );
        fs::write(&commands, text).unwrap();
        run(Command::new("debugfs").arg("-w").arg("-f").arg(&commands).arg(&self.path));
        fs::remove_file(source).unwrap();
        fs::remove_file(commands).unwrap();
    }
}

/// A running guest.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) vm: Vm,
    _dir: Option<TempDir>,
}

impl Machine {
    /// Boots a Debian from `disk`, with its socket in `dir`.
    pub(crate) fn on(disk: &Disk, name: &str, dir: &Path) -> Self {
        Self::start(VmConfig::with_disk(name, dir, disk.path()), None)
    }

    /// Boots a Debian from `disk`, with its socket in a temporary directory.
    pub(crate) fn debian(disk: &Disk, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start(VmConfig::with_disk(name, dir.path(), disk.path()), Some(dir))
    }

    /// Boots a small guest whose first process is the agent.
    pub(crate) fn agent_first(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = VmConfig {
            guest: Guest::AgentFirst,
            reboot_ends: true,
            ..VmConfig::new(name, dir.path())
        };
        Self::start(config, Some(dir))
    }

    /// Boots a guest as [`Machine::agent_first`] does, with 128 MiB and one processor.
    pub(crate) fn tiny(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = VmConfig {
            guest: Guest::AgentFirst,
            reboot_ends: true,
            memory_mib: 128,
            ..VmConfig::new(name, dir.path())
        };
        Self::start(config, Some(dir))
    }

    /// Starts a detached program.
    #[track_caller]
    pub(crate) fn detach(&self, id: &str, options: &[&str], script: &str) {
        let command = [&["exec", "-d", "--id", id], options, &["--", "sh", "-c", script]].concat();
        let output = minionsctl(self.vm.socket_path(), &command);
        assert!(output.status.success(), "{output:?}");
    }

    /// Returns the programs that `ps` lists, by id.
    #[track_caller]
    pub(crate) fn execs(&self) -> BTreeMap<String, Value> {
        let output = minionsctl(self.vm.socket_path(), &["ps"]);
        let list: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let execs = list["execs"].as_array().unwrap_or_else(|| panic!("{list}"));
        execs.iter().map(|exec| (exec["id"].as_str().unwrap().to_owned(), exec.clone())).collect()
    }

    fn start(config: VmConfig, dir: Option<TempDir>) -> Self {
        Self { vm: boot(config), _dir: dir }
    }

    /// Runs a shell script, and returns its result.
    pub(crate) fn sh(&self, script: &str) -> Value {
        let output = minionsctl(self.vm.socket_path(), &["exec", "--", "sh", "-c", script]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{script}: {output:?}\n{}", self.vm.serial_log()))
    }

    /// Runs a script that must succeed, and returns its output.
    #[track_caller]
    pub(crate) fn printed(&self, script: &str) -> String {
        let ran = self.sh(script);
        assert_eq!(ran["exit_code"], 0, "{script}: {ran}");
        ran["stdout"].as_str().unwrap().trim().to_owned()
    }

    /// Runs a script that ends the agent or the guest, so there may be no answer.
    pub(crate) fn last_words(&self, script: &str) {
        minionsctl(self.vm.socket_path(), &["exec", "--", "sh", "-c", script]);
    }

    /// Waits until the script prints something, and returns it.
    pub(crate) fn until_printed(&self, script: &str) -> String {
        wait_until(script, SOON, || Ok(Some(self.printed(script)).filter(|text| !text.is_empty())))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns the `instance_id` of the current agent.
    pub(crate) fn instance(&self) -> String {
        self.answering().unwrap_or_else(|| panic!("no answer\n{}", self.vm.serial_log()))
    }

    /// Waits until an agent with another `instance_id` answers.
    pub(crate) fn until_another(&self, instance: &str) {
        wait_until("another agent answers", SOON, || {
            Ok(self.answering().filter(|now| now != instance))
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.vm.serial_log()));
    }

    /// Returns the `instance_id`; `None` while the agent is unavailable, or if it ends in the middle of an answer.
    fn answering(&self) -> Option<String> {
        let output = minionsctl(self.vm.socket_path(), &["health"]);
        let health: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(health["agent"]["instance_id"].as_str()?.to_owned())
    }
}

/// Runs `minionsctl` with the agent of a VM, by the VM's socket.
pub(crate) fn minionsctl(socket: &Path, args: &[&str]) -> Output {
    direct(socket, args).output().unwrap()
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}
