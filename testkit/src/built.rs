//! Programs of the workspace.
#![expect(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

use std::env;
use std::path::{Path, PathBuf};

/// Returns the path of a program of the workspace, which Cargo builds in the directory above that of the test program.
/// Cargo gives a test only the paths of the programs in its own package.
///
/// # Panics
///
/// Panics if the program is not built.
#[must_use]
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let tests = env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join(name);
    assert!(program.is_file(), "{} is missing: run `cargo build -p {name}`", program.display());
    program
}
