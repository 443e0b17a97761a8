//! A missing part of the rig results in an error that names the part and the remedy.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use testkit::rig::{Artifacts, GUEST_MODULES, Layout};

fn touch(path: &Path) {
    let parent = path.parent().unwrap_or(path);
    let made = fs::create_dir_all(parent).and_then(|()| fs::write(path, ""));
    made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Creates a rig directory with every part, and a search path with every program.
fn complete(dir: &Path) -> (Layout, PathBuf) {
    let layout = Layout::new(dir.join("rig"));
    GUEST_MODULES.iter().for_each(|module| touch(&layout.module(module)));
    [layout.agent(), layout.kernel(), layout.initrd(), layout.vsock_backend()]
        .iter()
        .for_each(|part| touch(part));
    let programs = dir.join("bin");
    ["qemu-system-x86_64", "setpriv"].iter().for_each(|name| touch(&programs.join(name)));
    (layout, programs)
}

fn refusal(layout: &Layout, search_path: &OsStr) -> String {
    let error = Artifacts::locate_in(layout, search_path).expect_err("a part is missing");
    let text = error.to_string();
    assert!(text.contains("run `cargo xtask test`"), "{text}");
    text
}

#[test]
fn a_complete_rig_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, programs) = complete(dir.path());
    Artifacts::locate_in(&layout, programs.as_os_str()).unwrap();
}

#[test]
fn every_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, programs) = complete(dir.path());
    let parts = [
        (layout.kernel(), "kernel image"),
        (layout.module("vsock"), "kernel module vsock"),
        (layout.initrd(), "initial ramdisk"),
        (layout.agent(), "agent"),
        (layout.vsock_backend(), "vhost-device-vsock"),
    ];
    for (path, name) in parts {
        fs::remove_file(&path).unwrap();
        let text = refusal(&layout, programs.as_os_str());
        assert!(text.contains(name) && text.contains(&path.display().to_string()), "{text}");
        touch(&path);
    }
}

#[test]
fn every_missing_program_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, programs) = complete(dir.path());
    for name in ["qemu-system-x86_64", "setpriv"] {
        fs::remove_file(programs.join(name)).unwrap();
        let text = refusal(&layout, programs.as_os_str());
        assert!(text.contains(&format!("the program {name}")), "{text}");
        touch(&programs.join(name));
    }
}
