//! Programs that are published crates, each in one exact version.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use testkit::rig::Layout;

use crate::{
    command::{self, cargo},
    progress::Outcome,
};

/// Crate that has a program of the same name.
#[derive(Debug, Hash)]
pub(crate) struct CargoTool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// Build profile: `release`, or `dev`, which takes half the time.
    pub(crate) profile: &'static str,
}

/// Checker of the workspace's dependencies.
pub(crate) const CARGO_DENY: CargoTool =
    CargoTool { name: "cargo-deny", version: "0.20.2", profile: "dev" };

impl CargoTool {
    /// Installs the tool unless this version is installed.
    pub(crate) fn ensure(&self, rig: &Layout) -> anyhow::Result<Outcome> {
        let Self { name, version, .. } = self;
        // Cargo lists the crates that it has installed here, with their versions.
        let list = fs::read_to_string(rig.tools().join(".crates.toml")).unwrap_or_default();
        if self.program(rig).exists() && list.contains(&format!("\"{name} {version} ")) {
            return Ok(Outcome::Cached);
        }
        self.install(rig, &[name, "--version", version].map(OsStr::new))?;
        Ok(Outcome::done("built"))
    }

    /// Runs `cargo install` on `what`, with the dependencies from its own lock file.
    pub(super) fn install(&self, rig: &Layout, what: &[&OsStr]) -> anyhow::Result<()> {
        // Of its own, because tools are built side by side.
        let build = rig.dir().join("tools-build").join(self.name);
        let mut install = cargo();
        install
            .arg("install")
            .args(what)
            .args(["--profile", self.profile, "--locked", "--force", "--root"])
            .arg(rig.tools())
            .arg("--target-dir")
            .arg(&build)
            // Flags for the workspace are not meant for another project's program.
            .env_remove("RUSTFLAGS")
            // Of use only to its developers.
            .env("CARGO_PROFILE_DEV_DEBUG", "false");
        command::run(&mut install)?;
        // A few hundred megabytes that are not needed again; harmless if they stay.
        let _ = fs::remove_dir_all(build);
        Ok(())
    }

    /// Downloads the tool's source as a package of its own below `dir`.
    pub(super) fn source(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        let Self { name, version, .. } = self;
        // `cargo vendor` copies the dependencies of a package, so create a package that depends on the tool.
        let wish = dir.join("wish");
        fs::create_dir_all(&wish)?;
        fs::write(wish.join("lib.rs"), "")?;
        let manifest = format!(
            "[package]\nname = \"wish\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n\
             [workspace]\n[dependencies]\n{name} = \"={version}\"\n"
        );
        fs::write(wish.join("Cargo.toml"), manifest)?;
        let copies = dir.join("copies");
        let mut vendor = cargo();
        vendor.args(["vendor", "--versioned-dirs"]).arg(&copies).current_dir(&wish);
        command::run(&mut vendor)?;
        let package = copies.join(format!("{name}-{version}"));
        // Otherwise the package would count as a member of the workspace that contains it.
        let mut manifest = OpenOptions::new().append(true).open(package.join("Cargo.toml"))?;
        manifest
            .write_all(b"\n[workspace]\n")
            .context("cannot make the package a workspace of its own")?;
        Ok(package)
    }

    /// Returns the path of the installed program.
    pub(crate) fn program(&self, rig: &Layout) -> PathBuf {
        rig.tools().join("bin").join(self.name)
    }
}
