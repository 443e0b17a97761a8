//! Debians with systemd on a disk, as images of a user would be: built from packages, without an agent.
//!
//! Built without mounting anything: `mmdebstrap` makes a tarball, `mke2fs -d` makes a file system from it.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use testkit::rig::{DISK_MODULES, Layout};

use super::{apt::is_root, archive::CpioArchive, initrd::BUSYBOX, stamp::InputStamp};
use crate::{command, progress::Outcome};

/// First process of the guest, until it starts the disk's own init.
const INIT: &str = include_str!("disk-init.sh");

const SUITE: &str = "bookworm";

/// Packages of a small server image.
const PACKAGES: [&str; 10] = [
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "dbus",
    "udev",
    "kmod",
    "iproute2",
    "iputils-ping",
    "procps",
    "util-linux",
];

/// Further packages of the guest of `cargo xtask clients`: programs that clients start in a guest, and services for
/// forwards. No SSH server.
const CLIENT_PACKAGES: [&str; 8] =
    ["acl", "attr", "git", "nginx-light", "openssh-client", "python3", "rsync", "sudo"];

/// Properties by which the images differ.
#[derive(Debug)]
struct DebianImage {
    file: PathBuf,
    stamp: &'static str,
    packages: Vec<&'static str>,
    /// Size of the file system in MiB. The file is sparse.
    size: u32,
}

/// Builds the small image and the initial ramdisk that starts it, unless they are there.
pub(super) fn ensure(rig: &Layout) -> anyhow::Result<Outcome> {
    // Twice the size of the contents.
    let (file, packages) = (rig.debian(), PACKAGES.to_vec());
    DebianImage { file, stamp: "debian.stamp", packages, size: 600 }.ensure(rig)
}

/// Builds the image of `cargo xtask clients` and the initial ramdisk that starts it, unless they are there.
pub(super) fn ensure_for_clients(rig: &Layout) -> anyhow::Result<Outcome> {
    let packages = [&PACKAGES[..], &CLIENT_PACKAGES].concat();
    // Room for several files of 1 GiB.
    let file = rig.clients_debian();
    DebianImage { file, stamp: "clients.stamp", packages, size: 6000 }.ensure(rig)
}

impl DebianImage {
    fn ensure(&self, rig: &Layout) -> anyhow::Result<Outcome> {
        let modules = DISK_MODULES.map(|name| fs::read(rig.module(name)).unwrap_or_default());
        let inputs = (SUITE, &self.packages, self.size, INIT, &modules);
        let stamp = InputStamp::of(rig.dir().join(self.stamp), &inputs);
        if stamp.is_fresh(&self.file) && rig.disk_initrd().exists() {
            return Ok(Outcome::Cached);
        }
        write_initrd(rig).context("cannot write the disk's initial ramdisk")?;
        self.write(rig)?;
        stamp.write().context("cannot write the stamp of the image")?;
        Ok(Outcome::done("built"))
    }

    fn write(&self, rig: &Layout) -> anyhow::Result<()> {
        // Only root can unpack files with their real owners, and devices.
        ensure!(is_root(), "the Debian image is built by root: run this once as root");
        let scratch =
            tempfile::tempdir_in(rig.dir()).context("cannot create a scratch directory")?;
        let (tar, root) = (scratch.path().join("root.tar"), scratch.path().join("root"));
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--quiet", "--variant=minbase"]);
        // Manuals and translations are not needed and take time.
        bootstrap.args([
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
        ]);
        bootstrap.arg(format!("--include={}", self.packages.join(","))).arg(SUITE).arg(&tar);
        command::run(&mut bootstrap)?;
        fs::create_dir(&root)?;
        command::run(Command::new("tar").arg("-xpf").arg(&tar).arg("-C").arg(&root))?;
        add_modules(rig, &root)?;
        let image = scratch.path().join("debian.ext4");
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-t", "ext4", "-m", "0", "-d"]).arg(&root).arg(&image);
        command::run(make.arg(format!("{}M", self.size)))?;
        fs::rename(image, &self.file).context("cannot move the image to its place")
    }
}

/// Adds the kernel modules. Without `depmod` none is loaded automatically, and there is no /dev/vsock.
fn add_modules(rig: &Layout, root: &Path) -> anyhow::Result<()> {
    let source = rig.module_tree().join("lib/modules");
    command::run(Command::new("cp").args(["-r", "--"]).arg(&source).arg(root.join("usr/lib")))?;
    for version in fs::read_dir(&source).context("the kernel has no modules")? {
        command::run(Command::new("depmod").arg("-b").arg(root).arg(version?.file_name()))?;
    }
    Ok(())
}

fn write_initrd(rig: &Layout) -> anyhow::Result<()> {
    let mut archive = CpioArchive::default();
    for directory in ["dev", "root"] {
        archive.directory(directory, 0o755);
    }
    archive.file("bin/busybox", 0o755, fs::read(BUSYBOX)?);
    for applet in ["sh", "mount", "umount", "insmod", "switch_root", "poweroff", "usleep"] {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    let mut order = String::new();
    for name in DISK_MODULES {
        let path = format!("lib/modules/{name}.ko");
        order += &format!("/{path}\n");
        archive.file(&path, 0o644, fs::read(rig.module(name))?);
    }
    archive.file("lib/modules/order", 0o644, order);
    archive.file("init", 0o755, INIT);
    let plain = rig.disk_initrd().with_extension("");
    archive.write(BufWriter::new(File::create(&plain)?))?;
    command::run(Command::new("gzip").args(["--force", "--no-name"]).arg(&plain))?;
    Ok(())
}
