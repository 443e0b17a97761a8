//! The program that offers the hybrid-vsock socket for QEMU: a published crate.

use std::fs;

use testkit::rig::Layout;

use crate::{
    command::{self, cargo},
    progress::Outcome,
};

const CRATE: &str = "vhost-device-vsock";
const VERSION: &str = "0.3.0";

/// Installs the backend unless this version is there.
pub(crate) fn ensure(rig: &Layout) -> anyhow::Result<Outcome> {
    // Cargo lists here what it has installed, with versions.
    let list = fs::read_to_string(rig.tools().join(".crates.toml")).unwrap_or_default();
    if rig.vsock_backend().exists() && list.contains(&format!("\"{CRATE} {VERSION} ")) {
        return Ok(Outcome::Cached);
    }
    let build = rig.dir().join("tools-build");
    let mut install = cargo();
    install
        .args(["install", CRATE, "--version", VERSION, "--locked", "--force"])
        .arg("--root")
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
