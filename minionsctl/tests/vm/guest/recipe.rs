//! VMs that a script starts with the recipes of deploy/boot, in separate namespaces.

use super::machine::{SOON, minionsctl};
use crate::boot::BOOT;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use testkit::rig::{Layout, wait_until};

/// Network, process and mount namespaces that stand for the host. Dropping it ends all processes in them.
#[derive(Debug)]
pub(crate) struct Network {
    child: Child,
    dir: TempDir,
}

impl Network {
    /// Runs `script` with `$0` deploy/boot, `$1` the kernel, `$2` the ramdisk, `$3` the directory for
    /// sockets and consoles (`NAME.log`). It must not end before the test does.
    pub(crate) fn start(script: &str) -> Self {
        let layout = Layout::from_env();
        let dir = tempfile::tempdir().unwrap();
        let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/boot");
        let mut command = Command::new("unshare");
        // Killing the first process of a pid namespace kills all processes in it.
        command.args(["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"]);
        command.args(["--", "bash", "-c", script]);
        command.args([&boot, &layout.kernel(), &layout.initrd(), &dir.path().to_owned()]);
        command.env("VHOST_DEVICE_VSOCK", layout.vsock_backend());
        // Killed scripts do not remove their scratch directories. Here they are removed with `dir`.
        command.env("XDG_RUNTIME_DIR", dir.path());
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        Self { child, dir }
    }

    /// Returns the directory for sockets and consoles.
    pub(crate) fn sockets(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self, vm: &str) -> PathBuf {
        self.dir.path().join(format!("{vm}.vsock"))
    }

    fn console(&self, vm: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{vm}.log"))).unwrap_or_default()
    }

    pub(crate) fn wait_for(&mut self, vm: &str) {
        // No connection before the guest's vsock driver is loaded: see `testkit::rig::Vm::reset`.
        let up = || {
            let child = self.child.try_wait();
            assert!(matches!(child, Ok(None)), "the VMs have ended: {child:?}");
            Ok(self.console(vm).contains("init: up").then_some(()))
        };
        wait_until("the guest is up", BOOT, up).unwrap_or_else(|error| panic!("{error}"));
        let healthy = || minionsctl(&self.socket(vm), &["health"]).status.success();
        wait_until("the agent answers", SOON, || Ok(healthy().then_some(())))
            .unwrap_or_else(|error| panic!("{error}: {}", self.console(vm)));
    }
}

impl Network {
    #[track_caller]
    pub(crate) fn configure(&self, vm: &str, ip: &str, gateway: &str) {
        let call = ["configure-network", "--ip", ip, "--gateway", gateway, "--dns", gateway];
        let set = minionsctl(&self.socket(vm), &call);
        assert!(set.status.success(), "{vm}: {set:?}");
    }

    /// Runs a command in the guest, and returns its result.
    pub(crate) fn run(&self, vm: &str, command: &[&str]) -> Value {
        let output = minionsctl(&self.socket(vm), &[&["exec", "--"], command].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{command:?}: {output:?}\n{}", self.console(vm)))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
