//! Debian packages.

use std::{path::Path, process::Command};

use crate::{
    command::{self, CommandError, on_path},
    progress::Outcome,
};

/// A Debian package, and a check of whether its contents are installed.
#[derive(Debug)]
pub(crate) struct PackageNeed {
    pub(crate) package: &'static str,
    pub(crate) is_met: fn() -> bool,
}

/// Packages for booting a VM and for the demo.
pub(crate) const VM_NEEDS: [PackageNeed; 9] = [
    PackageNeed { package: "qemu-system-x86", is_met: || on_path("qemu-system-x86_64") },
    // Only the static variant runs in a guest without libraries, so a busybox in `PATH` proves nothing.
    PackageNeed { package: "busybox-static", is_met: || is_installed("busybox-static") },
    PackageNeed { package: "vim-tiny", is_met: || on_path("vim.tiny") },
    PackageNeed { package: "util-linux", is_met: || on_path("setpriv") },
    PackageNeed { package: "gzip", is_met: || on_path("gzip") },
    PackageNeed { package: "xz-utils", is_met: || on_path("xz") },
    PackageNeed { package: "patch", is_met: || on_path("patch") },
    PackageNeed { package: "curl", is_met: || on_path("curl") },
    // Links the agent statically.
    PackageNeed {
        package: "libc6-dev",
        is_met: || Path::new("/usr/lib/x86_64-linux-gnu/libc.a").exists(),
    },
];

/// Packages for the tests: tools to inspect the network, the browser whose pages the daemon must resist, a
/// checker of the units, the compiler for the fuzzer's C++ part, tools to build the images, and SSH with programs that use
/// it.
pub(crate) const TEST_NEEDS: [PackageNeed; 12] = [
    PackageNeed { package: "iproute2", is_met: || on_path("ip") },
    PackageNeed { package: "chromium", is_met: || on_path("chromium") },
    PackageNeed { package: "systemd", is_met: || on_path("systemd-analyze") },
    PackageNeed { package: "g++", is_met: || on_path("g++") },
    // The Debian guest, the tools that install the agent into it, and a checker of the install script.
    PackageNeed { package: "mmdebstrap", is_met: || on_path("mmdebstrap") },
    PackageNeed { package: "kmod", is_met: || on_path("depmod") },
    PackageNeed { package: "e2fsprogs", is_met: || on_path("debugfs") },
    PackageNeed { package: "zstd", is_met: || on_path("zstd") },
    PackageNeed { package: "shellcheck", is_met: || on_path("shellcheck") },
    PackageNeed { package: "openssh-client", is_met: || on_path("ssh") },
    PackageNeed { package: "rsync", is_met: || on_path("rsync") },
    PackageNeed { package: "git", is_met: || on_path("git") },
];

/// Packages of the other contenders of the benches, and the load generator.
pub(crate) const BENCH_NEEDS: [PackageNeed; 6] = [
    PackageNeed { package: "nginx-light", is_met: || on_path("nginx") },
    PackageNeed { package: "wrk", is_met: || on_path("wrk") },
    PackageNeed { package: "qemu-guest-agent", is_met: || Path::new("/usr/sbin/qemu-ga").exists() },
    PackageNeed { package: "openssh-server", is_met: || Path::new("/usr/sbin/sshd").exists() },
    PackageNeed { package: "openssh-client", is_met: || on_path("ssh") },
    PackageNeed { package: "socat", is_met: || on_path("socat") },
];

/// Packages of `cargo xtask clients`: tools to build the image, and the clients.
pub(crate) const CLIENT_NEEDS: [PackageNeed; 9] = [
    PackageNeed { package: "mmdebstrap", is_met: || on_path("mmdebstrap") },
    PackageNeed { package: "kmod", is_met: || on_path("depmod") },
    PackageNeed { package: "e2fsprogs", is_met: || on_path("debugfs") },
    PackageNeed { package: "openssh-client", is_met: || on_path("ssh") },
    PackageNeed { package: "rsync", is_met: || on_path("rsync") },
    PackageNeed { package: "git", is_met: || on_path("git") },
    PackageNeed { package: "wrk", is_met: || on_path("wrk") },
    PackageNeed { package: "acl", is_met: || on_path("setfacl") },
    PackageNeed { package: "attr", is_met: || on_path("setfattr") },
];

/// Failure to provide packages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AptError {
    #[error("missing Debian packages; run: sudo apt-get install -y --no-install-recommends {0}")]
    NotRoot(String),
    #[error("this machine has no apt-get; install the equivalents of these Debian packages: {0}")]
    NoApt(String),
    #[error("apt-get installed {0}, but the files expected from it are still missing")]
    StillMissing(String),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Client of apt; refreshes the package lists at most once a run.
#[derive(Debug, Default)]
pub(crate) struct AptClient {
    lists_are_fresh: bool,
}

impl AptClient {
    /// Installs the packages that are missing.
    pub(crate) fn ensure(&mut self, needs: &[&PackageNeed]) -> anyhow::Result<Outcome> {
        let missing = missing(needs);
        if missing.is_empty() {
            return Ok(Outcome::Cached);
        }
        self.install(&missing)?;
        let still = self::missing(needs);
        if !still.is_empty() {
            return Err(AptError::StillMissing(still.join(" ")).into());
        }
        Ok(Outcome::done(format!("installed {}", missing.join(", "))))
    }

    fn install(&mut self, names: &[&str]) -> Result<(), AptError> {
        if !on_path("apt-get") {
            return Err(AptError::NoApt(names.join(" ")));
        }
        if !is_root() {
            return Err(AptError::NotRoot(names.join(" ")));
        }
        self.refresh_lists()?;
        let mut install = apt_get("install");
        command::run(install.args(["-y", "--no-install-recommends"]).args(names))?;
        Ok(())
    }

    /// Runs `apt-get update` at the first call; does nothing without root privileges.
    pub(crate) fn refresh_lists(&mut self) -> Result<(), CommandError> {
        if !self.lists_are_fresh && is_root() {
            command::run(&mut apt_get("update"))?;
        }
        self.lists_are_fresh = true;
        Ok(())
    }

    /// Downloads the package file of `package` into `dir`.
    pub(crate) fn download(&self, package: &str, dir: &Path) -> Result<(), CommandError> {
        // As root, apt would download as the user _apt, who cannot write to `dir`.
        let mut download = apt_get("download");
        download.args(["-o", "APT::Sandbox::User=root", package]).current_dir(dir);
        command::run(&mut download).map(drop)
    }
}

fn missing(needs: &[&PackageNeed]) -> Vec<&'static str> {
    needs.iter().filter(|need| !(need.is_met)()).map(|need| need.package).collect()
}

fn apt_get(action: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", action]);
    command
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${db:Status-Status}", package]);
    command::run(&mut query).is_ok_and(|status| status == "installed")
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
