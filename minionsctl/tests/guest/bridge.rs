//! Three VMs on a bridge, started as the recipes say, in a network namespace of their own.

use crate::machine::{BOOT, SOON, minionsctl};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use testkit::rig::{Layout, wait_until};

const VMS: [(&str, &str); 3] = [("a", "10.77.0.11"), ("b", "10.77.0.12"), ("c", "10.77.0.13")];

/// `$0` is deploy/boot, `$1` the kernel, `$2` the ramdisk, `$3` where sockets and consoles go.
const START: &str = "set -e
    ip link set lo up
    \"$0/bridge.sh\" up a b c
    for vm in a b c; do
        \"$0/qemu.sh\" $vm --kernel \"$1\" --initrd \"$2\" --append 'quiet panic=0' --accel tcg \
            --net tap=tap-$vm --socket-dir \"$3\" --console \"$3/$vm.log\" &
    done
    wait";

/// A network namespace with everything in it, which ends with it.
struct Network {
    child: Child,
    dir: TempDir,
}

impl Network {
    fn start() -> Self {
        let layout = Layout::from_env();
        let dir = tempfile::tempdir().unwrap();
        let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/boot");
        let mut command = Command::new("unshare");
        // Killing the first process of a process namespace kills all that are in it.
        command.args(["--net", "--pid", "--fork", "--kill-child=KILL", "--", "bash", "-c", START]);
        command.args([&boot, &layout.kernel(), &layout.initrd(), &dir.path().to_owned()]);
        command.env("VHOST_DEVICE_VSOCK", layout.vsock_backend());
        // Killed as they are, the scripts leave their scratch directories; so they go with ours.
        command.env("XDG_RUNTIME_DIR", dir.path());
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        Self { child, dir }
    }

    fn socket(&self, vm: &str) -> PathBuf {
        self.dir.path().join(format!("{vm}.vsock"))
    }

    fn console(&self, vm: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{vm}.log"))).unwrap_or_default()
    }

    fn wait_for(&mut self, vm: &str) {
        // Not before its driver is there: see `testkit::rig::Vm::reset`.
        let up = || {
            let child = self.child.try_wait();
            assert!(matches!(child, Ok(None)), "the VMs have ended: {child:?}");
            let console = std::fs::read_to_string(self.dir.path().join(format!("{vm}.log")));
            Ok(console.unwrap_or_default().contains("init: up").then_some(()))
        };
        wait_until("the guest is up", BOOT, up).unwrap_or_else(|error| panic!("{error}"));
        let healthy = || minionsctl(&self.socket(vm), &["health"]).status.success();
        wait_until("the agent answers", SOON, || Ok(healthy().then_some(())))
            .unwrap_or_else(|error| panic!("{error}: {}", self.console(vm)));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn three_vms_on_a_bridge_ping_each_other_after_three_calls() {
    let mut network = Network::start();
    VMS.iter().for_each(|(vm, _)| network.wait_for(vm));
    for (vm, address) in VMS {
        let ip = format!("{address}/24");
        let call =
            ["configure-network", "--ip", &ip, "--gateway", "10.77.0.1", "--dns", "10.77.0.1"];
        let set = minionsctl(&network.socket(vm), &call);
        assert!(set.status.success(), "{vm}: {set:?}");
    }
    for (vm, _) in VMS {
        for to in VMS.map(|(_, address)| address).into_iter().chain(["10.77.0.1"]) {
            let ping = ["exec", "--", "ping", "-c", "1", "-W", "10", to];
            let pinged = minionsctl(&network.socket(vm), &ping);
            let pinged: Value = serde_json::from_slice(&pinged.stdout).unwrap();
            assert_eq!(pinged["exit_code"], 0, "{vm} to {to}: {pinged}");
        }
    }
}
