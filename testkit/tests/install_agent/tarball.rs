//! Tarballs, without root.

use crate::rootfs::{LEFT, PUT, Scene, sh};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const LIST: &str = "eval \"$1\" <\"$0\" | tar --numeric-owner -tvf - | sort";

#[test]
fn a_tarball_keeps_its_compression_and_all_other_entries() {
    let kinds = [("cat", "cat"), ("gzip", "gzip -dc"), ("xz", "xz -dc"), ("zstd -q", "zstd -dqc")];
    for (packer, unpacker) in kinds {
        let scene = Scene::systemd();
        let tarball = scene.tarball(packer);
        let list = || sh(LIST, &[&tarball, Path::new(unpacker)]);
        let before = list();
        scene.as_nobody(&[], &tarball).succeeded();
        let after = list();
        for name in PUT {
            let line = after.lines().find(|line| line.contains(&format!(" ./{name}"))).unwrap();
            assert!(line.contains(" 0/0 "), "{line}");
        }
        assert!(LEFT.iter().all(|name| !after.contains(&format!(" ./{name}"))), "{after}");
        assert!(scene.as_nobody(&[], &tarball).succeeded().out.is_empty());
        scene.as_nobody(&["--uninstall"], &tarball).succeeded();
        let names = |list: &str| {
            let names = list.lines().filter_map(|line| line.split(" ./").nth(1).map(str::to_owned));
            // The directory of the wants-links remains.
            names.filter(|name| !name.ends_with("sysinit.target.wants/")).collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&list()), names(&before), "{packer}");
        scene.assert_tidy();
    }
}

#[test]
fn a_compressed_file_that_is_not_a_tarball_is_rejected() {
    let scene = Scene::systemd();
    let file = scene.dir.path().join("a.gz");
    sh("head -c 4096 /dev/zero | tr '\\0' x | gzip >\"$0\"", &[&file]);
    let before = fs::read(&file).unwrap();
    scene.install(&[], &file).refused(65, "not a tarball");
    assert!(fs::read(&file).unwrap() == before);
}
