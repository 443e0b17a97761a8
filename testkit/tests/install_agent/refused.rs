//! Targets that cannot be changed are rejected with a reason, and stay the same byte for byte.

use crate::rootfs::{Scene, sh};
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

#[track_caller]
fn rejected_unchanged(scene: &Scene, image: &Path, code: i32, words: &str) {
    let before = fs::read(image).unwrap();
    scene.install(&[], image).refused(code, words);
    assert!(fs::read(image).unwrap() == before, "the image was changed");
    scene.assert_tidy();
}

fn overwrite(image: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(image).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_target_that_is_not_ext4_is_named_in_the_error() {
    let scene = Scene::systemd();
    let image = scene.dir.path().join("disk");
    for (at, magic, words) in [
        (510, &b"\x55\xaa"[..], "a disk with partitions"),
        (0, b"QFI\xfb", "a qcow2 image"),
        (0, b"XFSB", "an XFS file system"),
        (0, b"hsqs", "a squashfs"),
        (0, b"", "neither an ext4 file system nor a tarball"),
    ] {
        fs::write(&image, vec![0; 8192]).unwrap();
        overwrite(&image, at, magic);
        rejected_unchanged(&scene, &image, 65, words);
    }
    scene.install(&[], &scene.dir.path().join("nothing")).refused(66, "no such file");
    scene.install(&[], Path::new("/dev/null")).refused(65, "neither a file nor a directory");
    scene.install(&[], Path::new("/")).refused(65, "own root file system");
}

#[test]
fn an_image_without_room_is_not_changed() {
    let scene = Scene::systemd();
    fs::write(scene.agent(), [fs::read("/bin/true").unwrap(), vec![1; 12 << 20]].concat()).unwrap();
    let image = scene.image("8M");
    rejected_unchanged(&scene, &image, 73, "no space");
}

#[test]
fn an_image_in_use_is_not_changed() {
    let scene = Scene::systemd();
    let image = scene.image("16M");
    let mount = scene.dir.path().join("mnt");
    fs::create_dir(&mount).unwrap();
    sh("mount -o loop,ro \"$0\" \"$1\"", &[&image, &mount]);
    let before = fs::read(&image).unwrap();
    let ran = scene.install(&[], &image);
    sh("umount \"$0\"", &[&mount]);
    ran.refused(75, &format!("mounted on {}", mount.display()));
    assert!(fs::read(&image).unwrap() == before);
    // A VMM locks its disk without mounting it.
    let file = fs::File::open(&image).unwrap();
    file.lock().unwrap();
    rejected_unchanged(&scene, &image, 75, "holds a lock");
}

#[test]
fn an_unclean_file_system_is_not_changed() {
    let scene = Scene::systemd();
    let image = scene.image("16M");
    sh("debugfs -w -R 'feature needs_recovery' \"$0\"", &[&image]);
    rejected_unchanged(&scene, &image, 76, "was not unmounted");
    let image = scene.image("16M");
    sh("debugfs -w -R 'clri /usr' \"$0\"", &[&image]);
    rejected_unchanged(&scene, &image, 76, "has errors");
}

#[test]
fn an_unusable_or_missing_agent_is_not_installed() {
    let scene = Scene::systemd();
    let image = scene.image("16M");
    // Another architecture than this machine's: 183 is EM_AARCH64, 62 is EM_X86_64.
    let other: u8 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    overwrite(&scene.agent(), 18, &[other]);
    rejected_unchanged(&scene, &image, 78, "another processor");
    fs::write(scene.agent(), "#!/bin/sh\n").unwrap();
    rejected_unchanged(&scene, &image, 65, "not a program for Linux");
    fs::remove_file(scene.agent()).unwrap();
    rejected_unchanged(&scene, &image, 66, "no agent");
}

#[test]
fn an_image_without_an_init_is_rejected_unless_the_agent_is_its_init() {
    let scene = Scene::bare();
    let image = scene.image("16M");
    rejected_unchanged(&scene, &image, 65, "neither systemd nor OpenRC");
    let ran = scene.install(&["--init", "none"], &image).succeeded();
    assert_eq!(ran.out, "put /usr/local/bin/minions-agent (755, root)\n");
    assert!(ran.stderr.contains("init=/usr/local/bin/minions-agent -- --init"), "{ran:?}");
}

#[test]
fn a_wrong_command_line_exits_with_64() {
    let scene = Scene::systemd();
    let root = scene.root();
    for wrong in
        [&["--what"][..], &["--init", "sysv"], &["--remove", "etc/x"], &["--remove", "/../x"]]
    {
        scene.install(wrong, &root).refused(64, "--help");
    }
    scene.install(&["--mount"], &root).refused(64, "image files");
}
