//! Configuration of a VM.

use std::path::PathBuf;

/// Configuration of a VM.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// Name of the VM: its socket is `<name>.vsock`, and its hostname is this name.
    pub name: String,
    /// Directory of the hybrid-vsock socket; must exist and have a short path.
    pub socket_dir: PathBuf,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Number of network cards, named `eth0` and so on, each on a separate network with QEMU as the gateway
    /// (10.0.2.2, fec0::2); the last byte of their MACs counts from 1.
    pub nics: u8,
    /// Guest to boot.
    pub guest: Guest,
    /// Makes a reboot of the guest end QEMU, as it ends Firecracker.
    pub reboot_ends: bool,
    /// File with the state of a saved guest, which QEMU loads instead of booting; set by [`Vm::restore`](super::Vm::restore).
    pub incoming: Option<PathBuf>,
}

/// Guest that a VM boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guest {
    /// The rig's own initial ramdisk: busybox and the agent.
    Small,
    /// Ramdisk of `Small`, with the agent itself as the first process (`--init`).
    AgentFirst,
    /// Raw disk image with a file system that contains systemd or another init; the guest writes to it.
    Disk(PathBuf),
}

impl VmConfig {
    /// Configures a small VM: 256 MiB, one CPU, one network card.
    pub fn new(name: impl Into<String>, socket_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            socket_dir: socket_dir.into(),
            memory_mib: 256,
            cpus: 1,
            nics: 1,
            guest: Guest::Small,
            reboot_ends: false,
            incoming: None,
        }
    }

    /// Configures a VM with a distribution on `disk`: 512 MiB and two CPUs. A reboot ends QEMU; boot the VM
    /// again.
    pub fn with_disk(
        name: impl Into<String>,
        socket_dir: impl Into<PathBuf>,
        disk: impl Into<PathBuf>,
    ) -> Self {
        Self {
            memory_mib: 512,
            cpus: 2,
            guest: Guest::Disk(disk.into()),
            reboot_ends: true,
            ..Self::new(name, socket_dir)
        }
    }
}
