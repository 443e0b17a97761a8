//! `deploy/install-agent` changes images, directories and tarballs completely, or not at all.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod directory;
mod image;
mod port;
mod refused;
mod rootfs;
mod tarball;

use std::path::{Path, PathBuf};
use std::process::Command;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install-agent")
}

#[test]
fn shellcheck_reports_nothing_about_the_scripts() {
    let deploy = script().parent().unwrap().to_owned();
    let judged = Command::new("shellcheck")
        .args([script(), deploy.join("boot/qemu.sh"), deploy.join("boot/bridge.sh")])
        .output()
        .unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}
