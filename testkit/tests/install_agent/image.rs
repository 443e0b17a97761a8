//! ext4 images, without root.

use crate::rootfs::{LEFT, PUT, Scene, sh};
use std::fs;
use std::path::Path;

/// Returns type, mode, owner, and a link's target, as debugfs shows them.
fn stat(image: &Path, name: &str) -> Option<String> {
    let output = sh("debugfs -R \"stat /$1\" \"$0\" 2>/dev/null", &[image, Path::new(name)]);
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    let after = |key: &str| words.split_once(key).and_then(|(_, rest)| rest.split(' ').next());
    let (kind, mode) = (after("Type: ")?, after("Mode: ")?);
    let owner = format!("{}:{}", after("User: ")?, after("Group: ")?);
    Some([kind, mode, &owner, after("Fast link dest: ").unwrap_or("")].join(" ").trim().to_owned())
}

fn is_sound(image: &Path) {
    sh("e2fsck -fn \"$0\"", &[image]);
}

#[test]
fn an_image_is_changed_without_root_and_all_of_it_belongs_to_root() {
    let scene = Scene::systemd();
    let image = scene.image("16M");
    let ran = scene.as_nobody(&[], &image).succeeded();
    assert_eq!(stat(&image, PUT[0]).unwrap(), "regular 0755 0:0");
    assert_eq!(stat(&image, PUT[1]).unwrap(), "regular 0644 0:0");
    let wanted = "symlink 0777 0:0 \"/etc/systemd/system/minions-agent.socket\"";
    assert_eq!(stat(&image, PUT[4]).unwrap(), wanted);
    for (name, at) in LEFT.iter().zip(1..) {
        assert_eq!(stat(&image, name), None, "{name} (number {at}) is still there");
        assert!(ran.out.contains(&format!("move /{name} to /var/lib/minions-agent/removed/")));
    }
    let agent = sh(
        "debugfs -R 'cat /usr/local/bin/minions-agent' \"$0\" 2>/dev/null | cmp - \"$1\"",
        &[&image, &scene.agent()],
    );
    assert_eq!(agent, "");
    is_sound(&image);
    scene.assert_tidy();
}

#[test]
fn a_second_run_changes_nothing_and_a_new_agent_replaces_the_old_one() {
    let scene = Scene::systemd();
    let image = scene.image("16M");
    scene.install(&[], &image).succeeded();
    let once = fs::read(&image).unwrap();
    let again = scene.install(&[], &image).succeeded();
    assert!(again.out.is_empty() && again.stderr.contains("nothing to do"), "{again:?}");
    assert!(fs::read(&image).unwrap() == once);
    fs::copy("/bin/false", scene.agent()).unwrap();
    let other = scene.install(&[], &image).succeeded();
    assert_eq!(other.out, "replace /usr/local/bin/minions-agent (755, root)\n");
    is_sound(&image);
}

#[test]
fn a_dry_run_reports_the_same_steps_and_changes_nothing() {
    let scene = Scene::systemd();
    let image = scene.image("16M");
    let before = fs::read(&image).unwrap();
    let dry = scene.install(&["--dry-run"], &image).succeeded();
    assert!(fs::read(&image).unwrap() == before);
    let real = scene.install(&[], &image).succeeded();
    assert_eq!(dry.out.replace("would ", ""), real.out);
}

#[test]
fn an_uninstall_restores_what_was_removed() {
    for mount in [&[][..], &["--mount"]] {
        let scene = Scene::systemd();
        let image = scene.image("16M");
        let names = [&LEFT[..], &PUT].concat();
        let look = || names.iter().map(|name| stat(&image, name)).collect::<Vec<_>>();
        let before = look();
        scene.install(mount, &image).succeeded();
        assert_ne!(look(), before);
        scene.install(&[mount, &["--uninstall"]].concat(), &image).succeeded();
        assert_eq!(look(), before);
        assert_eq!(stat(&image, "var/lib/minions-agent"), None);
        is_sound(&image);
        scene.assert_tidy();
    }
}

#[test]
fn links_are_resolved_inside_the_image_and_a_link_at_the_target_is_replaced() {
    let scene = Scene::systemd();
    let root = scene.root();
    fs::rename(root.join("etc/systemd"), root.join("usr/etc-systemd")).unwrap();
    std::os::unix::fs::symlink("/../../usr/etc-systemd", root.join("etc/systemd")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join(PUT[0])).unwrap();
    let image = scene.image("16M");
    scene.install(&[], &image).succeeded();
    assert_eq!(
        stat(&image, "usr/etc-systemd/system/minions-agent.service").unwrap(),
        "regular 0644 0:0"
    );
    assert_eq!(stat(&image, PUT[0]).unwrap(), "regular 0755 0:0");
    assert_eq!(stat(&image, "etc/passwd"), None);
    is_sound(&image);
}

#[test]
fn an_image_without_systemd_gets_a_service_for_its_init() {
    let openrc = Scene::bare();
    openrc.program("usr/sbin/openrc-run");
    openrc.file("etc/runlevels/boot/.keep", "");
    let image = openrc.image("16M");
    openrc.install(&[], &image).succeeded();
    assert_eq!(stat(&image, "etc/init.d/minions-agent").unwrap(), "regular 0755 0:0");
    assert!(
        stat(&image, "etc/runlevels/boot/minions-agent")
            .unwrap()
            .contains("/etc/init.d/minions-agent")
    );

    let busybox = Scene::bare();
    busybox.program("usr/bin/busybox");
    busybox.file("etc/inittab", "::sysinit:/etc/rc\n::respawn:/bin/getty");
    let image = busybox.image("16M");
    let inittab = || sh("debugfs -R 'cat /etc/inittab' \"$0\" 2>/dev/null", &[&image]);
    let before = inittab();
    busybox.install(&[], &image).succeeded();
    assert!(inittab().starts_with(&format!("{before}\n# BEGIN minions-agent\n")), "{}", inittab());
    assert!(inittab().contains("\n::respawn:/bin/sh -c \""));
    assert!(busybox.install(&[], &image).succeeded().out.is_empty());
    busybox.install(&["--uninstall"], &image).succeeded();
    assert_eq!(inittab().trim_end(), before);
}
