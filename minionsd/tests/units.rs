//! The unit files, as systemd judges them.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(name)
}

/// `systemd-analyze` counts in tenths: 20 is an exposure of 2.0, "OK".
const THRESHOLD: &str = "--threshold=20";

#[test]
fn the_daemons_unit_leaves_an_attacker_little() {
    let judged = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", THRESHOLD])
        .arg(unit("minionsd.service"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(said.contains("Overall exposure level"), "{said}");
    println!("{}", said.lines().last().unwrap());
}
