//! Where the parts of a VM lie in the rig directory.

use std::path::{Path, PathBuf};

/// The kernel modules that the guest inserts, in this order: each needs the ones before it.
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

/// What the disk's initial ramdisk inserts before it mounts the disk, in this order.
pub const DISK_MODULES: [&str; 6] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
];

/// Names the parts below one rig directory; says nothing about whether they exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout below `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The layout that the environment asks for: `MINIONS_RIG_DIR`, else `rig` in the workspace's
    /// target directory (`CARGO_TARGET_DIR`, else `target` at the workspace's root).
    pub fn from_env() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(dir) = set("MINIONS_RIG_DIR") {
            return Self::new(dir);
        }
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // A relative CARGO_TARGET_DIR is meant from the workspace, where cargo is called; a test
        // runs in its own crate's directory.
        let target = workspace.join(set("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        Self::new(target.join("rig"))
    }

    /// The rig directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The guest's kernel image.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("kernel/vmlinuz")
    }

    /// One of [`GUEST_MODULES`], decompressed.
    pub fn module(&self, name: &str) -> PathBuf {
        self.dir.join("kernel/modules").join(format!("{name}.ko"))
    }

    /// The initial ramdisk, which is the whole guest: busybox, modules, agent.
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd.gz")
    }

    /// The initial ramdisk that mounts a disk and starts what is on it.
    pub fn disk_initrd(&self) -> PathBuf {
        self.dir.join("disk-initrd.gz")
    }

    /// A Debian with systemd on an ext4 file system, without an agent. To be copied, not changed.
    pub fn debian(&self) -> PathBuf {
        self.dir.join("debian.ext4")
    }

    /// The kernel's modules as its package has them, below `lib/modules`.
    pub fn module_tree(&self) -> PathBuf {
        self.dir.join("kernel/tree")
    }

    /// The static agent that was put into the initial ramdisk.
    pub fn agent(&self) -> PathBuf {
        self.dir.join("agent/minions-agent")
    }

    /// The static `vsock-probe` that was put into the initial ramdisk.
    pub fn probe(&self) -> PathBuf {
        self.dir.join("agent/vsock-probe")
    }

    /// The root under which host tools are installed (`bin` below it).
    pub fn tools(&self) -> PathBuf {
        self.dir.join("tools")
    }

    /// The vsock backend, which offers the hybrid-vsock socket.
    pub fn vsock_backend(&self) -> PathBuf {
        self.tools().join("bin/vhost-device-vsock")
    }

    /// The virtual environment with the OpenAPI tools.
    pub fn venv(&self) -> PathBuf {
        self.dir.join("venv")
    }
}
