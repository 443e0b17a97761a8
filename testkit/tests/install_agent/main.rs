//! `deploy/install-agent`: into images, directories and tarballs, or not at all.
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
fn the_scripts_are_clean_for_shellcheck() {
    let deploy = script().parent().unwrap().to_owned();
    let judged = Command::new("shellcheck")
        .args([script(), deploy.join("boot/qemu.sh"), deploy.join("boot/bridge.sh")])
        .output()
        .unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}
