//! Security of the unit files, as rated by systemd.

use std::path::{Path, PathBuf};
use std::process::Command;

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(name)
}

/// `systemd-analyze` counts in tenths: 20 is an exposure of 2.0, "OK".
const THRESHOLD: &str = "--threshold=20";

#[test]
fn systemd_rates_the_exposure_of_the_daemons_unit_as_ok() {
    let rated = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", THRESHOLD])
        .arg(unit("minionsd.service"))
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&rated.stdout);
    assert!(rated.status.success(), "{report}{}", String::from_utf8_lossy(&rated.stderr));
    assert!(report.contains("Overall exposure level"), "{report}");
    println!("{}", report.lines().last().unwrap());
}
