//! vhost-device-vsock, which provides the hybrid-vsock socket for QEMU: built from its published source with
//! a few patches, because unchanged it ends or hangs under the faults that the tests inject.

use anyhow::Context;
use testkit::rig::Layout;

use super::{
    cargo_tool::CargoTool,
    patch::{self, SourcePatch},
    stamp::InputStamp,
};
use crate::progress::Outcome;

const TOOL: CargoTool =
    CargoTool { name: "vhost-device-vsock", version: "0.3.0", profile: "release" };

/// Includes the patches of these names from the directory `patches`.
macro_rules! patches {
    ($($name:literal),+ $(,)?) => {
        &[$(SourcePatch { name: $name, text: include_str!(concat!("patches/", $name)) }),+]
    };
}

/// Patches that the backend needs to serve a VM for as long as it runs, whatever its clients and its guest do.
const PATCHES: &[SourcePatch] = patches![
    "01-client-gone-before-connect.patch",
    "02-client-gone-before-ok.patch",
    "03-client-gone-before-answer.patch",
    "04-client-gone-with-bytes-unread.patch",
    "05-no-queues.patch",
    "06-sibling-event.patch",
    "07-errors-end-the-worker.patch",
    "08-panic-in-tx.patch",
    "09-data-in-flight-at-reset.patch",
];

/// Builds the backend unless it was built from this version with these patches.
pub(crate) fn ensure(rig: &Layout) -> anyhow::Result<Outcome> {
    let stamp = stamp(rig, PATCHES);
    if stamp.is_fresh(&TOOL.program(rig)) {
        return Ok(Outcome::Cached);
    }
    let scratch = tempfile::tempdir_in(rig.dir()).context("cannot create a scratch directory")?;
    let package = TOOL.source(scratch.path())?;
    patch::apply(&package, PATCHES)?;
    TOOL.install(rig, &["--path".as_ref(), package.as_os_str()])?;
    stamp.write().context("cannot write the stamp of the vsock backend")?;
    Ok(Outcome::done(format!("built with {} patches", PATCHES.len())))
}

fn stamp(rig: &Layout, patches: &[SourcePatch]) -> InputStamp {
    InputStamp::of(rig.tools().join("vhost-device-vsock.stamp"), &(TOOL, patches))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_changed_patch_requires_a_new_build() {
        let dir = tempfile::tempdir().unwrap();
        let rig = Layout::new(dir.path());
        let program = TOOL.program(&rig);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        stamp(&rig, &[SourcePatch { name: "a.patch", text: "one" }]).write().unwrap();
        let is_fresh =
            |text| stamp(&rig, &[SourcePatch { name: "a.patch", text }]).is_fresh(&program);
        assert!(is_fresh("one"));
        assert!(!is_fresh("two"));
    }

    #[test]
    fn every_patch_says_why_and_contains_at_most_one_line_of_context_around_a_change() {
        for SourcePatch { name, text } in PATCHES {
            let (why, hunks) = text.split_once("\n--- a/").unwrap();
            assert!(why.ends_with(".\n"), "{name}: {why}");
            let lines: Vec<&str> = hunks.lines().collect();
            let is_context = |line: &str| line.starts_with(' ');
            let two = lines.windows(2).find(|two| two.iter().all(|line| is_context(line)));
            assert_eq!(two, None, "{name}");
        }
    }

    #[test]
    fn every_patch_in_the_directory_is_applied() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/setup/vsock_backend/patches");
        let mut files: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, PATCHES.iter().map(|patch| patch.name).collect::<Vec<_>>());
    }
}
