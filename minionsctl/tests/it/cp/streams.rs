//! Tar streams on standard input and output.

use super::guest::CopyGuest;
use crate::shared::command::{Ran, Running};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

fn listed(tar: &[u8], guest: &CopyGuest) -> Vec<String> {
    fs::write(guest.path("listed.tar"), tar).unwrap();
    let ran = Command::new("tar").arg("-tf").arg(guest.path("listed.tar")).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let mut names: Vec<_> =
        String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_becomes_a_stream_under_its_own_name() {
    let guest = CopyGuest::start().await;
    guest.write("site/a", "A");
    guest.write("site/deep/b", "B");
    fs::hard_link(guest.path("site/a"), guest.path("site/c")).unwrap();
    let packed = guest.run(&[&guest.of_vm("site"), "-"]);
    assert_eq!((packed.code, packed.stderr.as_str()), (0, ""));
    let names = ["site/", "site/a", "site/c", "site/deep/", "site/deep/b"];
    assert_eq!(listed(&packed.stdout, &guest), names);
    guest.mkdir("unpacked");
    let tar = guest.path("listed.tar");
    let status =
        Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(guest.path("unpacked")).status();
    assert!(status.unwrap().success());
    guest.assert_content("unpacked/site/deep/b", "B");
    guest.assert_content("unpacked/site/c", "A");

    let contents = guest.run(&[&guest.of_vm("site/."), "-"]);
    let names = ["./", "a", "c", "deep/", "deep/b"];
    assert_eq!(listed(&contents.stdout, &guest), names);
    let file = guest.run(&[&guest.of_vm("site/a"), "-"]);
    assert_eq!(listed(&file.stdout, &guest), ["a"]);
    guest.run(&[&guest.of_vm("none"), "-"]).assert(1, "", "No such file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_unpacked_into_an_existing_directory() {
    let guest = CopyGuest::start().await;
    guest.write("site/a", "A");
    guest.mkdir("in");
    let tar = guest.path("site.tar");
    let mut pack = Command::new("tar");
    pack.arg("-cf").arg(&tar).arg("-C").arg(guest.path("")).arg("site");
    assert!(pack.status().unwrap().success());
    let send = |to: &str| Ran::of(guest.cp(&["-", to]).stdin(File::open(&tar).unwrap()));
    send(&guest.of_vm("in")).assert(0, "", "");
    guest.assert_content("in/site/a", "A");
    send(&guest.of_vm("none")).assert(1, "", "must be an existing directory");
    send(&guest.of_vm("in/site/a")).assert(1, "", "is not a directory");
    fs::write(&tar, b"this is not a tar stream".repeat(100)).unwrap();
    send(&guest.of_vm("in")).assert(1, "", "not a tar stream");
    send(&guest.of_vm("in/site")).assert(1, "", "not a tar stream");
    let directory = File::open(guest.path("in")).unwrap();
    let read = Ran::of(guest.cp(&["-", &guest.of_vm("in")]).stdin(directory));
    read.assert(1, "", "Is a directory");
    let none = Ran::of(guest.cp(&["-", &guest.of_vm("in")]).stdin(Stdio::null()));
    none.assert(1, "", "its end is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_ends_the_command_although_its_input_stays_open() {
    let guest = CopyGuest::start().await;
    guest.mkdir("closed");
    fs::set_permissions(guest.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = guest.cp(&["-u", "nobody", "-", &guest.of_vm("closed")]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let input = running.child.stdin.take().unwrap();
    running.end().assert(1, "", "Permission denied");
    drop(input);
}
