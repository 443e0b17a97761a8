//! QEMU's command line.

use std::{ffi::OsString, path::Path, process::Command};

use super::artifacts::Artifacts;
use super::config::{Guest, VmConfig};
use super::snapshot::{SLOT, device_ids};

/// Private files of one VM that are on QEMU's command line.
pub(crate) struct QemuFiles<'a> {
    pub(crate) vhost_socket: &'a Path,
    pub(crate) monitor: &'a Path,
    pub(crate) serial: &'a Path,
}

/// Builds the command. Its less obvious options:
///
/// - TCG, never KVM: `/dev/kvm` may exist and still fail, and tests must not differ between machines.
/// - The guest's memory is a shared memfd, because the vhost-user backend maps it.
/// - `restrict=on` keeps every packet of the guest inside QEMU: only its own gateway answers.
/// - The vsock device is in a slot of its own, so that it can be unplugged while the guest runs.
/// - `-no-reboot` only if configured: with it a reset, by the guest or the monitor, would end QEMU. `panic=0`
///   keeps a guest that panicked from rebooting repeatedly.
/// - `no_timer_check`: at its start the kernel counts timer interrupts for 40 ms, and panics if an emulated
///   processor that the host does not schedule gets too few of them.
pub(crate) fn command(artifacts: &Artifacts, config: &VmConfig, files: &QemuFiles<'_>) -> Command {
    let memory = config.memory_mib;
    let mut command = Command::new(&artifacts.qemu);
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults", "-display", "none"])
        .args(["-m", &memory.to_string(), "-smp", &config.cpus.to_string()])
        .args(["-object", &format!("memory-backend-memfd,id=mem,size={memory}M,share=on")])
        .args(["-machine", "q35,memory-backend=mem"])
        .arg("-kernel")
        .arg(&artifacts.kernel)
        .arg("-serial")
        .arg(with_path("file:", files.serial, ""))
        .arg("-qmp")
        .arg(with_path("unix:", files.monitor, ",server=on,wait=off"))
        .args(["-device", &format!("pcie-root-port,id={SLOT},chassis=1")]);
    match &config.incoming {
        // A saved guest has no vsock device; it is plugged in later.
        Some(state) => _ = command.arg("-incoming").arg(with_path("exec:cat ", state, "")),
        None => {
            let (device, chardev) = device_ids(0);
            command
                .arg("-chardev")
                .arg(with_path(&format!("socket,id={chardev},path="), files.vhost_socket, ""))
                .arg("-device")
                .arg(format!("vhost-user-vsock-pci,chardev={chardev},id={device},bus={SLOT}"));
        }
    }
    for nic in 1..=config.nics {
        command.args(["-netdev", &format!("user,id=net{nic},restrict=on")]);
        let device = format!("virtio-net-pci,netdev=net{nic},mac=52:54:00:4d:00:{nic:02x}");
        command.args(["-device", &device]);
    }
    boot_from(&mut command, artifacts, config);
    if config.reboot_ends {
        command.arg("-no-reboot");
    }
    command
}

const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=0 no_timer_check";

fn boot_from(command: &mut Command, artifacts: &Artifacts, config: &VmConfig) {
    let (initrd, words) = match &config.guest {
        Guest::Small => (&artifacts.initrd, ""),
        // The kernel passes the words after the two dashes to the first process.
        Guest::AgentFirst => (&artifacts.initrd, "rdinit=/usr/bin/minions-agent -- --init"),
        Guest::Disk(disk) => {
            // `unsafe`: the disk of a test does not have to survive a crash of this machine.
            let drive = with_path("if=none,id=disk,format=raw,cache=unsafe,file=", disk, "");
            command.arg("-drive").arg(drive).args(["-device", "virtio-blk-pci,drive=disk"]);
            (&artifacts.disk_initrd, "root=/dev/vda rw")
        }
    };
    command
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(format!("{KERNEL_WORDS} minions.hostname={} {words}", config.name));
}

fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    let mut option = OsString::from(before);
    option.push(path);
    option.push(after);
    option
}
