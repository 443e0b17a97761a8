//! Paths of the parts of a VM in the rig directory.

use std::path::{Path, PathBuf};

/// Kernel modules that the guest inserts, in this order: each needs those before it.
///
/// The first block is virtio over PCI, then the network card, then vsock.
pub const GUEST_MODULES: [&str; 11] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
];

/// Kernel modules that the disk's initial ramdisk inserts before it mounts the disk, in this order.
pub const DISK_MODULES: [&str; 6] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
];

/// Paths of all parts in one rig directory; the parts need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Returns the layout for the rig directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Returns the layout for the rig directory named by the environment: `MINIONS_RIG_DIR`, else `rig` in
    /// the workspace's target directory (`CARGO_TARGET_DIR`, else `target` at the workspace's root).
    pub fn from_env() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(dir) = set("MINIONS_RIG_DIR") {
            return Self::new(dir);
        }
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // A relative CARGO_TARGET_DIR is relative to the workspace, where cargo is called; a test runs in the
        // directory of its crate.
        let target = workspace.join(set("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        Self::new(target.join("rig"))
    }

    /// Returns the rig directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the path of the guest's kernel image.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("kernel/vmlinuz")
    }

    /// Returns the path of a decompressed kernel module.
    pub fn module(&self, name: &str) -> PathBuf {
        self.dir.join("kernel/modules").join(format!("{name}.ko"))
    }

    /// Returns the path of the initial ramdisk that is a complete guest: busybox, modules, agent.
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd.gz")
    }

    /// Returns the path of the initial ramdisk that mounts a disk and starts its init.
    pub fn disk_initrd(&self) -> PathBuf {
        self.dir.join("disk-initrd.gz")
    }

    /// Returns the path of a Debian with systemd on an ext4 file system, without an agent. Copy it before use.
    pub fn debian(&self) -> PathBuf {
        self.dir.join("debian.ext4")
    }

    /// Returns the path of the Debian of `cargo xtask clients`, which has more programs. Copy it before use.
    pub fn clients_debian(&self) -> PathBuf {
        self.dir.join("clients.ext4")
    }

    /// Returns the path of the kernel's modules in the directory structure of their package, below
    /// `lib/modules`.
    pub fn module_tree(&self) -> PathBuf {
        self.dir.join("kernel/tree")
    }

    /// Returns the path of the static agent that is in the initial ramdisk.
    pub fn agent(&self) -> PathBuf {
        self.dir.join("agent/minions-agent")
    }

    /// Returns the path of the static `vsock-probe` that is in the initial ramdisk.
    pub fn probe(&self) -> PathBuf {
        self.dir.join("agent/vsock-probe")
    }

    /// Returns the root directory of the installed host tools (`bin` is below it).
    pub fn tools(&self) -> PathBuf {
        self.dir.join("tools")
    }

    /// Returns the path of the vsock backend, which provides the hybrid-vsock socket.
    pub fn vsock_backend(&self) -> PathBuf {
        self.tools().join("bin/vhost-device-vsock")
    }

    /// Returns the path of the virtual environment with the OpenAPI tools.
    pub fn venv(&self) -> PathBuf {
        self.dir.join("venv")
    }
}
