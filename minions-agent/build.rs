//! Options for the linker of the static agent.

use std::env;
use std::process::Command;

/// First version of glibc whose static programs can read a packed table of relocations (`DT_RELR`).
const PACKED_SINCE: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let is_static = features.split(',').any(|feature| feature == "crt-static");
    let target = env::var("TARGET").unwrap_or_default();
    // The version of another system's library is not known.
    let is_known = is("CARGO_CFG_TARGET_ENV", "gnu") && is("HOST", &target);
    if is_static && is_known && glibc().is_some_and(|version| version >= PACKED_SINCE) {
        // A static program can be loaded at any address, so each of its pointers to itself has a relocation: 24 bytes,
        // packed hardly more than a bit.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Returns the version of the system's C library.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
