//! A guest and its disk, and programs in it by the shortest way: minionsctl straight to the agent.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use testkit::rig::{Artifacts, Guest, Layout, Vm, VmConfig, debian, wait_until};

pub(crate) const AGENT_PORT: u32 = 1024;

/// A systemd under emulation, on a machine that is busy with other tests.
pub(crate) const BOOT: Duration = Duration::from_secs(240);

/// For whatever happens soon in such a guest.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// Nobody in particular: who has no rights on this machine.
const NOBODY: u32 = 65534;

/// Left from image building, as somebody's image has it.
const STATIC_NETWORK: &str =
    "[Match]\nName=e*\n[Network]\nAddress=10.99.99.99/24\nGateway=10.99.99.1\n";

/// A copy of the Debian image with the agent in it.
#[derive(Debug)]
pub(crate) struct Disk {
    // Removed when dropped.
    _dir: TempDir,
    path: PathBuf,
}

impl Disk {
    /// Installed by somebody without rights, and without a mount.
    pub(crate) fn installed() -> Self {
        let layout = Layout::from_env();
        let source = debian(&layout).unwrap_or_else(|error| panic!("{error}"));
        // Beside the source, where there is room, and where it may be a copy of extents.
        let dir = tempfile::Builder::new().prefix("disk-").tempdir_in(layout.dir()).unwrap();
        let disk = Self { path: dir.path().join("root.ext4"), _dir: dir };
        let mut copy = Command::new("cp");
        run(copy.args(["--reflink=auto", "--sparse=always"]).arg(source).arg(&disk.path));
        disk.put(STATIC_NETWORK.as_bytes(), "/etc/systemd/network/10-vm.network", "0100644");
        disk.put(&fs::read(layout.probe()).unwrap(), "/usr/local/bin/vsock-probe", "0100755");
        for owned in [&disk.path, &disk.path.parent().unwrap().to_owned()] {
            chown(owned, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let said = disk.install(&layout);
        assert!(said.contains("move /etc/systemd/network/10-vm.network"), "{said}");
        disk
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn install(&self, layout: &Layout) -> String {
        // Who has no rights can't reach this checkout, perhaps; so what it takes goes with the disk.
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
        let said = run(&mut install);
        run(Command::new("mv").arg(&disk).arg(&self.path));
        String::from_utf8(said.stdout).unwrap()
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
    /// A Debian on `disk`, up; its socket is in `dir`.
    pub(crate) fn on(disk: &Disk, name: &str, dir: &Path) -> Self {
        Self::start(VmConfig::with_disk(name, dir, disk.path()), None)
    }

    /// As [`Machine::on`], in a directory of its own.
    pub(crate) fn debian(disk: &Disk, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start(VmConfig::with_disk(name, dir.path(), disk.path()), Some(dir))
    }

    /// A small one whose first process is the agent.
    pub(crate) fn agent_first(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = VmConfig {
            guest: Guest::AgentFirst,
            reboot_ends: true,
            ..VmConfig::new(name, dir.path())
        };
        Self::start(config, Some(dir))
    }

    /// As [`Machine::agent_first`], with 128 MiB and one processor.
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

    /// Starts a program that goes on by itself.
    #[track_caller]
    pub(crate) fn detach(&self, id: &str, options: &[&str], script: &str) {
        let command = [&["exec", "-d", "--id", id], options, &["--", "sh", "-c", script]].concat();
        let output = minionsctl(self.vm.socket_path(), &command);
        assert!(output.status.success(), "{output:?}");
    }

    /// `ps`, by id.
    #[track_caller]
    pub(crate) fn execs(&self) -> BTreeMap<String, Value> {
        let output = minionsctl(self.vm.socket_path(), &["ps"]);
        let list: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let execs = list["execs"].as_array().unwrap_or_else(|| panic!("{list}"));
        execs.iter().map(|exec| (exec["id"].as_str().unwrap().to_owned(), exec.clone())).collect()
    }

    fn start(config: VmConfig, dir: Option<TempDir>) -> Self {
        let artifacts = Artifacts::locate().unwrap_or_else(|error| panic!("{error}"));
        let mut vm = Vm::boot(&artifacts, config).unwrap_or_else(|error| panic!("{error}"));
        vm.wait_for_port(AGENT_PORT, BOOT).unwrap_or_else(|error| panic!("{error}"));
        Self { vm, _dir: dir }
    }

    /// Runs a shell's script to its end.
    pub(crate) fn sh(&self, script: &str) -> Value {
        let output = minionsctl(self.vm.socket_path(), &["exec", "--", "sh", "-c", script]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{script}: {output:?}\n{}", self.vm.serial_log()))
    }

    /// What a script that succeeds prints.
    #[track_caller]
    pub(crate) fn printed(&self, script: &str) -> String {
        let ran = self.sh(script);
        assert_eq!(ran["exit_code"], 0, "{script}: {ran}");
        ran["stdout"].as_str().unwrap().trim().to_owned()
    }

    /// Runs a script that ends the agent or the guest: nobody may be left to answer.
    pub(crate) fn last_words(&self, script: &str) {
        minionsctl(self.vm.socket_path(), &["exec", "--", "sh", "-c", script]);
    }

    /// Until the script prints something.
    pub(crate) fn until_printed(&self, script: &str) -> String {
        wait_until(script, SOON, || Ok(Some(self.printed(script)).filter(|said| !said.is_empty())))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// `instance_id` of the agent that answers now.
    pub(crate) fn instance(&self) -> String {
        self.answering().unwrap_or_else(|| panic!("no answer\n{}", self.vm.serial_log()))
    }

    /// Until an agent answers that is not the one with this `instance_id`.
    pub(crate) fn until_another(&self, instance: &str) {
        wait_until("another agent answers", SOON, || {
            Ok(self.answering().filter(|now| now != instance))
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.vm.serial_log()));
    }

    /// None while the agent is away, or ends in the middle of an answer.
    fn answering(&self) -> Option<String> {
        let output = minionsctl(self.vm.socket_path(), &["health"]);
        let health: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(health["agent"]["instance_id"].as_str()?.to_owned())
    }
}

pub(crate) fn minionsctl(socket: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minionsctl"));
    command.arg("--socket").arg(socket).args(args).output().unwrap()
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}
