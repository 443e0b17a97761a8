//! Directories, including hostile ones.

use crate::rootfs::{LEFT, PUT, Scene, listing, make_executable};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

#[test]
fn an_uninstall_restores_the_directory_as_before_the_install() {
    let scene = Scene::systemd();
    let root = scene.root();
    fs::create_dir_all(root.join("etc/systemd/system/sysinit.target.wants")).unwrap();
    let before = listing(&root);
    scene.install(&[], &root).succeeded();
    for name in PUT {
        let metadata = root.join(name).symlink_metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{name}");
    }
    assert!(LEFT.iter().all(|name| root.join(name).symlink_metadata().is_err()));
    assert!(scene.install(&[], &root).succeeded().out.is_empty());
    scene.install(&["--uninstall"], &root).succeeded();
    assert_eq!(listing(&root), before);
}

#[test]
fn named_files_are_removed_too_and_a_network_can_be_kept() {
    let scene = Scene::systemd();
    let root = scene.root();
    scene.file("etc/netplan/50-cloud.yaml", "network: {}\n");
    let kept = ["--keep-network", "--remove", "/etc/netplan/50-cloud.yaml"];
    scene.install(&kept, &root).succeeded();
    assert!(!root.join("etc/netplan/50-cloud.yaml").exists());
    assert!(root.join(LEFT[0]).exists());
    scene.install(&["--uninstall"], &root).succeeded();
    assert_eq!(
        fs::read_to_string(root.join("etc/netplan/50-cloud.yaml")).unwrap(),
        "network: {}\n"
    );
}

#[test]
fn links_that_lead_out_of_the_directory_are_resolved_inside_it() {
    let scene = Scene::systemd();
    let (root, host) = (scene.root(), scene.dir.path().join("host"));
    // `host` stands for the host's root: it is the target of an absolute link and of one that climbs.
    for name in ["systemd", "bin"] {
        fs::create_dir_all(host.join(name)).unwrap();
    }
    fs::rename(root.join("etc/systemd"), root.join("usr/old")).unwrap();
    symlink(host.join("systemd"), root.join("etc/systemd")).unwrap();
    fs::remove_dir(root.join("usr/local/bin")).unwrap();
    symlink("../../../../../host/bin", root.join("usr/local/bin")).unwrap();
    let before = listing(&host);
    let ran = scene.install(&[], &root).succeeded();
    assert_eq!(listing(&host), before, "{ran:?}");
    // The files are where the guest would find them.
    assert!(root.join("host/bin/minions-agent").exists());
    let inside =
        root.join(host.strip_prefix("/").unwrap()).join("systemd/system/minions-agent.service");
    assert!(inside.exists());
}

#[test]
fn a_loop_of_links_and_a_name_unsafe_for_debugfs_are_rejected() {
    for (target, words) in [("systemd", "loop of links"), ("a\" b", "unsupported characters")] {
        let scene = Scene::systemd();
        let root = scene.root();
        fs::rename(root.join("etc/systemd"), root.join("usr/old")).unwrap();
        symlink(target, root.join("etc/systemd")).unwrap();
        let before = listing(&root);
        scene.install(&[], &root).refused(65, words);
        assert_eq!(listing(&root), before);
    }
}

#[test]
fn a_change_that_fails_halfway_is_undone() {
    let scene = Scene::systemd();
    let root = scene.root();
    let before = listing(&root);
    // The last steps move the old network configuration away; the second of them fails.
    let tools = scene.dir.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let mv = "#!/bin/sh\ncase \"$*\" in *removed/*vm-network.service) exit 1;; esac\nexec /bin/mv \"$@\"\n";
    fs::write(tools.join("mv"), mv).unwrap();
    make_executable(&tools.join("mv"));
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let ran = std::process::Command::new(crate::script())
        .args(["--agent".as_ref(), scene.agent().as_os_str(), root.as_os_str()])
        .env("PATH", path)
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(ran.stdout.is_empty() && String::from_utf8_lossy(&ran.stderr).contains("undoing"));
    assert_eq!(listing(&root), before);
}
