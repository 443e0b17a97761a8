//! What can't be changed is said to be so, and stays byte for byte.

use crate::rootfs::{Scene, sh};
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

#[track_caller]
fn stays(scene: &Scene, image: &Path, code: i32, words: &str) {
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
fn what_is_no_ext4_is_named_and_what_to_do_with_it() {
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
        stays(&scene, &image, 65, words);
    }
    scene.install(&[], &scene.dir.path().join("nothing")).refused(66, "no such file");
    scene.install(&[], Path::new("/dev/null")).refused(65, "neither a file nor a directory");
    scene.install(&[], Path::new("/")).refused(65, "own root file system");
}

#[test]
fn an_image_without_room_stays_as_it_is() {
    let scene = Scene::systemd();
    fs::write(scene.agent(), [fs::read("/bin/true").unwrap(), vec![1; 12 << 20]].concat()).unwrap();
    let image = scene.image("8M");
    stays(&scene, &image, 73, "no room");
}

#[test]
fn an_image_in_use_stays_as_it_is() {
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
    stays(&scene, &image, 75, "holds a lock");
}

#[test]
fn an_unclean_file_system_stays_as_it_is() {
    let scene = Scene::systemd();
    let image = scene.image("16M");
    sh("debugfs -w -R 'feature needs_recovery' \"$0\"", &[&image]);
    stays(&scene, &image, 76, "was not unmounted");
    let image = scene.image("16M");
    sh("debugfs -w -R 'clri /usr' \"$0\"", &[&image]);
    stays(&scene, &image, 76, "has errors");
}

#[test]
fn an_agent_for_another_processor_or_none_at_all_is_not_put_in() {
    let scene = Scene::systemd();
    let image = scene.image("16M");
    // 183 is EM_AARCH64, whoever this machine is: then it is 62, EM_X86_64.
    let other: u8 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    overwrite(&scene.agent(), 18, &[other]);
    stays(&scene, &image, 78, "another processor");
    fs::write(scene.agent(), "#!/bin/sh\n").unwrap();
    stays(&scene, &image, 65, "no program for Linux");
    fs::remove_file(scene.agent()).unwrap();
    stays(&scene, &image, 66, "no agent");
}

#[test]
fn an_image_without_an_init_is_refused_unless_the_agent_shall_be_it() {
    let scene = Scene::bare();
    let image = scene.image("16M");
    stays(&scene, &image, 65, "neither systemd nor OpenRC");
    let ran = scene.install(&["--init", "none"], &image).succeeded();
    assert_eq!(ran.out, "put /usr/local/bin/minions-agent (755, root)\n");
    assert!(ran.said.contains("init=/usr/local/bin/minions-agent -- --init"), "{ran:?}");
}

#[test]
fn a_wrong_command_line_is_64() {
    let scene = Scene::systemd();
    let root = scene.root();
    for wrong in
        [&["--what"][..], &["--init", "sysv"], &["--remove", "etc/x"], &["--remove", "/../x"]]
    {
        scene.install(wrong, &root).refused(64, "--help");
    }
    scene.install(&["--mount"], &root).refused(64, "image files");
}
