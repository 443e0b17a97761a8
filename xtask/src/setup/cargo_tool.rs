//! Programs that are published crates, in exactly one version each.

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

/// A crate with a program of the same name.
#[derive(Debug, Hash)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// How it is built: `release`, or `dev`, which is there in half the time.
    pub(crate) profile: &'static str,
}

/// Looks at what the workspace depends on.
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", profile: "dev" };

impl Tool {
    /// Installs it unless this version is there.
    pub(crate) fn ensure(&self, rig: &Layout) -> anyhow::Result<Outcome> {
        let Self { name, version, .. } = self;
        // Cargo lists here what it has installed, with versions.
        let list = fs::read_to_string(rig.tools().join(".crates.toml")).unwrap_or_default();
        if self.program(rig).exists() && list.contains(&format!("\"{name} {version} ")) {
            return Ok(Outcome::Cached);
        }
        self.install(rig, &[name, "--version", version].map(OsStr::new))?;
        Ok(Outcome::done("built"))
    }

    /// `cargo install` of `what`, with the dependencies that its own lock file names.
    pub(super) fn install(&self, rig: &Layout, what: &[&OsStr]) -> anyhow::Result<()> {
        let build = rig.dir().join("tools-build");
        let mut install = cargo();
        install
            .arg("install")
            .args(what)
            .args(["--profile", self.profile, "--locked", "--force", "--root"])
            .arg(rig.tools())
            .arg("--target-dir")
            .arg(&build)
            // Flags for the workspace are not meant for somebody else's program.
            .env_remove("RUSTFLAGS");
        command::run(&mut install)?;
        // A few hundred megabytes that nobody needs again; no harm if they stay.
        let _ = fs::remove_dir_all(build);
        Ok(())
    }

    /// Its source, as a package of its own below `dir`.
    pub(super) fn source(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        let Self { name, version, .. } = self;
        // Cargo copies what a package depends on: so here is one that depends on it.
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
        // No member of the workspace that it lies in.
        let mut manifest = OpenOptions::new().append(true).open(package.join("Cargo.toml"))?;
        manifest.write_all(b"\n[workspace]\n").context("cannot set the package apart")?;
        Ok(package)
    }

    /// Where it is.
    pub(crate) fn program(&self, rig: &Layout) -> PathBuf {
        rig.tools().join("bin").join(self.name)
    }
}
