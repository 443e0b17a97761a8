//! Programs that are published crates, in exactly one version each.

use std::{fs, path::PathBuf};

use testkit::rig::Layout;

use crate::{
    command::{self, cargo},
    progress::Outcome,
};

/// A crate with a program of the same name.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// How it is built: `release`, or `dev`, which is there in half the time.
    pub(crate) profile: &'static str,
}

/// Offers the hybrid-vsock socket for QEMU.
pub(crate) const VSOCK_BACKEND: Tool =
    Tool { name: "vhost-device-vsock", version: "0.3.0", profile: "release" };

/// Looks at what the workspace depends on.
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", profile: "dev" };

impl Tool {
    /// Installs it unless this version is there.
    pub(crate) fn ensure(&self, rig: &Layout) -> anyhow::Result<Outcome> {
        let Self { name, version, profile } = self;
        // Cargo lists here what it has installed, with versions.
        let list = fs::read_to_string(rig.tools().join(".crates.toml")).unwrap_or_default();
        if self.program(rig).exists() && list.contains(&format!("\"{name} {version} ")) {
            return Ok(Outcome::Cached);
        }
        let build = rig.dir().join("tools-build");
        let mut install = cargo();
        install
            .args(["install", name, "--version", version, "--profile", profile])
            .args(["--locked", "--force", "--root"])
            .arg(rig.tools())
            .arg("--target-dir")
            .arg(&build)
            // Flags for the workspace are not meant for somebody else's program.
            .env_remove("RUSTFLAGS");
        command::run(&mut install)?;
        // A few hundred megabytes that nobody needs again; no harm if they stay.
        let _ = fs::remove_dir_all(build);
        Ok(Outcome::done("built"))
    }

    /// Where it is.
    pub(crate) fn program(&self, rig: &Layout) -> PathBuf {
        rig.tools().join("bin").join(self.name)
    }
}
