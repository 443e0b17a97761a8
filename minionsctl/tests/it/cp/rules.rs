//! Names, directories and slashes: the rules of cp(1) and docker, in each direction.

use super::guest::CopyGuest;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// Directions of a copy, as the prefixes of source and destination.
const DIRECTIONS: [(&str, &str); 3] = [("", "web-1:"), ("web-1:", ""), ("web-1:", "web-1:")];

#[tokio::test(flavor = "multi_thread")]
async fn a_source_gets_the_name_that_cp_would_give_it() {
    let guest = CopyGuest::start().await;
    guest.write("from/file", "text");
    guest.write("from/dir/inner", "deep");
    symlink("dir", guest.path("from/dir-link")).unwrap();
    for (number, (left, right)) in DIRECTIONS.into_iter().enumerate() {
        let to = |name: &str| format!("{right}{}", guest.text(&format!("to-{number}/{name}")));
        let from = |name: &str| format!("{left}{}", guest.text(&format!("from/{name}")));
        guest.mkdir(&format!("to-{number}/existing"));
        let copied = |args: &[&str], name: &str, content: &str| {
            guest.run(args).assert(0, "", "");
            guest.assert_content(&format!("to-{number}/{name}"), content);
        };
        copied(&[&from("file"), &to("existing")], "existing/file", "text");
        copied(&[&from("file"), &to("existing/")], "existing/file", "text");
        copied(&[&from("file"), &to("existing/renamed")], "existing/renamed", "text");
        copied(&["-r", &from("file"), &to("tree-renamed")], "tree-renamed", "text");
        copied(&["-r", &from("file"), &to("existing")], "existing/file", "text");
        copied(&["-r", &from("dir"), &to("existing")], "existing/dir/inner", "deep");
        copied(&["-r", &from("dir/"), &to("existing")], "existing/dir/inner", "deep");
        copied(&["-r", &from("dir/."), &to("existing")], "existing/inner", "deep");
        copied(&["-r", &from("dir-link/"), &to("existing")], "existing/dir-link/inner", "deep");
        copied(&["-r", &from("dir"), &to("new")], "new/inner", "deep");
        copied(&["-r", &from("dir/."), &to("new-2/")], "new-2/inner", "deep");
        // A second copy into a directory that exists now.
        copied(&["-r", &from("dir"), &to("new")], "new/dir/inner", "deep");

        let refused = |args: &[&str], message: &str| {
            guest.run(args).assert(1, "", message);
        };
        refused(&[&from("dir"), &to("existing")], "is a directory: copy it with -r");
        refused(&[&from("file"), &to("none/")], "does not exist");
        refused(&[&from("file"), &to("none/name")], "No such file or directory");
        refused(&["-r", &from("dir"), &to("none/name")], "No such file or directory");
        refused(&["-r", &from("dir"), &to("existing/file")], "is not a directory");
        refused(&[&from("file"), &to("existing/file/")], "ot a directory");
        refused(&[&from("none"), &to("existing")], "No such file or directory");
        assert!(!guest.path(&format!("to-{number}/none")).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sources_need_an_existing_directory_and_each_is_copied() {
    let guest = CopyGuest::start().await;
    guest.write("a", "A");
    guest.write("b", "B");
    guest.mkdir("to");
    for (left, right) in DIRECTIONS {
        let (a, b) = (format!("{left}{}", guest.text("a")), format!("{left}{}", guest.text("b")));
        let none = format!("{left}{}", guest.text("none"));
        let to = |name: &str| format!("{right}{}", guest.text(name));
        guest.run(&[&a, &b, &to("new")]).assert(1, "", "must be an existing directory");
        guest.run(&[&a, &b, &to("a")]).assert(1, "", "is not a directory");
        let ran = guest.run(&[&a, &none, &b, &to("to")]);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert_eq!(ran.stderr.matches("No such file").count(), 1, "{}", ran.stderr);
        guest.assert_content("to/a", "A");
        guest.assert_content("to/b", "B");
        fs::remove_dir_all(guest.path("to")).unwrap();
        guest.mkdir("to");
    }
    assert!(!guest.path("new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_and_permission_bits_are_copied_and_links_only_with_r() {
    let guest = CopyGuest::start().await;
    guest.write("run", "#!/bin/sh\n");
    fs::set_permissions(guest.path("run"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("run", guest.path("link")).unwrap();
    guest.mkdir("to");
    let mode = |name: &str| fs::symlink_metadata(guest.path(name)).unwrap().mode() & 0o7777;
    let old = fs::metadata(guest.path("run")).unwrap().modified().unwrap();
    let older = old - std::time::Duration::from_secs(1000);
    fs::File::open(guest.path("run")).unwrap().set_modified(older).unwrap();
    for (left, right) in DIRECTIONS {
        let from = |name: &str| format!("{left}{}", guest.text(name));
        let to = |name: &str| format!("{right}{}", guest.text(name));
        guest.run(&[&from("link"), &to("to/")]).assert(0, "", "");
        assert!(fs::symlink_metadata(guest.path("to/link")).unwrap().is_file());
        assert_eq!(mode("to/link"), 0o751);
        guest.run(&["-m", "600", &from("run"), &to("to/private")]).assert(0, "", "");
        assert_eq!(mode("to/private"), 0o600);
        guest.run(&["-r", &from("link"), &to("to/")]).assert(0, "", "");
        assert_eq!(fs::read_link(guest.path("to/link")).unwrap().to_str(), Some("run"));
        guest.run(&["-r", &from("run"), &to("to/run")]).assert(0, "", "");
        assert_eq!(mode("to/run"), 0o751);
        let modified = |name: &str| fs::metadata(guest.path(name)).unwrap().modified().unwrap();
        guest.run(&["-a", &from("run"), &to("to/run")]).assert(0, "", "");
        assert_eq!((mode("to/run"), modified("to/run")), (0o751, older));
        guest.run(&["-a", "--set-id", &from("run"), &to("to/run")]).assert(0, "", "");
        assert_eq!(mode("to/run"), 0o4751);
        // A link at the destination is replaced, not followed.
        guest.write("victim", "untouched");
        symlink(guest.path("victim"), guest.path("to/trap")).unwrap();
        guest.run(&[&from("run"), &to("to/trap")]).assert(0, "", "");
        guest.assert_content("victim", "untouched");
        fs::remove_dir_all(guest.path("to")).unwrap();
        guest.mkdir("to");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_in_the_guest_determines_the_rights() {
    let guest = CopyGuest::start().await;
    guest.write("secret", "x");
    fs::set_permissions(guest.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    guest.mkdir("open");
    fs::set_permissions(guest.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let denied = guest.run(&["-u", "nobody", &guest.of_vm("secret"), "out"]);
    denied.assert(1, "", "Permission denied");
    guest.run(&["-u", "nobody", "-a", "secret", &guest.of_vm("open")]).assert(0, "", "");
    assert_eq!(fs::metadata(guest.path("open/secret")).unwrap().uid(), 65_534);
    guest.run(&["-u", "nosuch", "secret", &guest.of_vm("open")]).assert(1, "", "nosuch");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_no_copy_can_serve_are_refused() {
    let guest = CopyGuest::start().await;
    guest.write("a", "A");
    guest.run(&["a", "b"]).assert(1, "", "must be in a guest");
    guest.run(&["a"]).assert(2, "", "2 values");
    guest.run(&["a", "web-1:relative"]).assert(1, "", "absolute path");
    guest.run(&["--set-id", "a", "web-1:/tmp"]).assert(2, "", "--archive");
    guest.run(&["-r", "-m", "600", "a", "web-1:/tmp"]).assert(2, "", "cannot be used with");
    guest.run(&["-m", "4755", "a", "web-1:/tmp"]).assert(2, "", "at most 777");
    guest.run(&["--concurrency", "3", "a", "web-1:/tmp"]).assert(1, "", "require --on or --all");
    guest.run(&["a", "none:/tmp"]).assert(1, "", "no VM named none");
    guest.run(&["-", "-"]).assert(1, "", "must be in a guest");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_one_object_for_each_source() {
    let guest = CopyGuest::start().await;
    guest.write("a", "A");
    guest.mkdir("to");
    let mut command = crate::shared::command::ctl(
        &guest.daemon.host(),
        &["-o", "json", "cp", "-r", &guest.text("a"), &guest.text("none"), &guest.of_vm("to")],
    );
    let ran = crate::shared::command::Ran::of(&mut command);
    assert_eq!(ran.code, 1);
    let lines: Vec<serde_json::Value> = std::str::from_utf8(&ran.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["status"], &lines[0]["files"]), (&"ok".into(), &1.into()));
    assert_eq!(lines[0]["destination"], guest.of_vm("to"));
    assert_eq!((&lines[1]["status"], &lines[1]["left_out"]), (&"failed".into(), &0.into()));
    assert!(lines[1]["failures"][0].as_str().unwrap().contains("No such file"));
}
