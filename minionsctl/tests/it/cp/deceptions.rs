//! Guests that answer with another kind of file than was asked for, and streams that other programs would misread.

use super::guest::{CopyGuest, names};
use super::hostile::HostileTar;
use super::hostile_server::{HostileAnswer, serve};
use crate::shared::command::{Ran, ctl};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use tar::EntryType as Kind;

/// Returns an answer with one member of this kind.
fn one(kind: &'static str, stream: HostileTar) -> HostileAnswer {
    HostileAnswer { kind, ..HostileAnswer::tree(stream.end()) }
}

fn cp(dir: &Path, answer: HostileAnswer, args: &[&str]) -> Ran {
    let host = serve(answer);
    Ran::of(ctl(&host, &[&["cp"], args].concat()).current_dir(dir))
}

#[test]
fn a_name_that_the_user_chose_does_not_become_a_link_of_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let link = || one("symlink", HostileTar::new().member("data", Kind::Symlink, "/etc", b""));
    for (source, to, reason) in [
        ("web-1:/data/.", "./backup", "is not a directory"),
        ("web-1:/data/.", ".", "is not a directory"),
        ("web-1:/data", "./backup", "the source is a symbolic link"),
    ] {
        cp(dir.path(), link(), &["-r", source, to]).assert(1, "", reason);
        assert!(names(dir.path()).is_empty(), "{source} {to}");
    }
    // Beneath a directory that exists, a link is copied as a link, and never followed.
    cp(dir.path(), link(), &["-r", "web-1:/data", "."]).assert(0, "", "");
    assert_eq!(fs::read_link(dir.path().join("data")).unwrap(), Path::new("/etc"));
    let tree = HostileTar::new().member("evil", Kind::Regular, "", b"x");
    cp(dir.path(), one("directory", tree), &["-r", "web-1:/data", "."]).assert(1, "", "data");
    assert!(!Path::new("/etc/evil").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_from_one_guest_leads_no_later_copy_astray_in_another() {
    let guest = CopyGuest::with(&["web-1", "web-2"]).await;
    guest.mkdir("a");
    guest.mkdir("b");
    guest.mkdir("outside");
    let outside = guest.text("outside");
    symlink(&outside, guest.path("a/x")).unwrap();
    let to = format!("web-2:{}", guest.text("b"));
    let source = guest.of_vm("a/x");
    guest.run(&["-r", &source, &to]).assert(0, "", "");
    assert!(guest.path("b/x").is_symlink());
    // Now the source is a directory of this name.
    fs::remove_file(guest.path("a/x")).unwrap();
    guest.write("a/x/evil", "x");
    guest.run(&["-r", &source, &to]).assert(1, "", "is a symbolic link");
    assert!(guest.names("outside").is_empty());
    let chosen = format!("web-2:{}", guest.text("b/chosen"));
    symlink(&outside, guest.path("a/link")).unwrap();
    guest.run(&["-r", &guest.of_vm("a/link"), &chosen]).assert(1, "", "symbolic link");
    assert_eq!(guest.names("b"), ["x"]);
}

/// Writes the tree of the answer to a file, and returns what `tar` lists of it.
fn listed(dir: &Path, answer: HostileAnswer, options: &[&str]) -> (i32, String) {
    let host = serve(answer);
    let file = fs::File::create(dir.join("stream.tar")).unwrap();
    let mut command = ctl(&host, &[&["cp"], options, &["web-1:/site", "-"]].concat());
    let status = command.stdout(file).stderr(Stdio::null()).status().unwrap();
    let tar = Command::new("tar").arg("-tvf").arg(dir.join("stream.tar")).output().unwrap();
    (status.code().unwrap(), String::from_utf8(tar.stdout).unwrap())
}

/// Returns an extended header with one record.
fn record(key: &str, value: &str) -> HostileTar {
    let rest = format!(" {key}={value}\n");
    let len = (1..).find(|len: &usize| len.to_string().len() + rest.len() == *len).unwrap();
    let record = format!("{len}{rest}");
    HostileTar::new().member("pax", Kind::XHeader, "", record.as_bytes())
}

#[test]
fn a_stream_to_standard_output_has_the_promised_names_and_no_privileges() {
    let dir = tempfile::tempdir().unwrap();
    // The members of this test have set-user-id.
    let file = || HostileTar::new().member("a", Kind::Regular, "", b"x");
    let (code, names) = listed(dir.path(), one("directory", file()), &[]);
    assert!(code == 0 && names.contains("-rwxr-xr-x") && names.contains("site/a"), "{names}");
    let (_, names) = listed(dir.path(), one("directory", file()), &["-a", "--set-id"]);
    assert!(names.contains("-rwsr-xr-x"), "{names}");
    for (key, value) in [("GNU.sparse.name", "etc/cron.d/evil"), ("GNU.sparse.major", "1")] {
        let stream = record(key, value).member("a", Kind::Regular, "", b"x");
        let (code, names) = listed(dir.path(), one("directory", stream), &[]);
        assert!(code == 1 && !names.contains("evil"), "{key}: {names}");
    }
    for key in ["LIBARCHIVE.xattr.x", "RHT.security.selinux", "SCHILY.acl.access", "comment"] {
        let stream = record(key, "evil").member("a", Kind::Regular, "", b"x");
        let (code, names) = listed(dir.path(), one("directory", stream), &["-a"]);
        let bytes = fs::read(dir.path().join("stream.tar")).unwrap();
        assert!(code == 0 && names.contains("site/a"), "{key}: {names}");
        assert!(!bytes.windows(4).any(|four| four == b"evil"), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_guest_is_not_open_to_more_users_than_the_umask_permits() {
    let guest = CopyGuest::start().await;
    guest.write("tree/file", "x");
    fs::set_permissions(guest.path("tree/file"), PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions(guest.path("tree"), PermissionsExt::from_mode(0o777)).unwrap();
    let (file, tree) = (guest.of_vm("tree/file"), guest.of_vm("tree"));
    let mode = |name: &str| fs::metadata(guest.path(name)).unwrap().permissions().mode() & 0o777;
    let run = |args: &str| {
        let cp = guest.cp(&args.split(' ').collect::<Vec<_>>());
        let line = r#"umask 027; exec "$0" "$@""#;
        let mut sh = Command::new("sh");
        sh.arg("-c").arg(line).arg(cp.get_program()).args(cp.get_args());
        sh.envs(cp.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ran::of(sh.current_dir(guest.path(""))).assert(0, "", "");
    };
    run(&format!("{file} copy"));
    run(&format!("-r {tree} copies"));
    run(&format!("-a {tree} archive"));
    assert_eq!((mode("copy"), mode("copies"), mode("copies/file")), (0o640, 0o750, 0o640));
    assert_eq!((mode("archive"), mode("archive/file")), (0o777, 0o666));
    run(&format!("-m 666 {file} chosen"));
    assert_eq!(mode("chosen"), 0o666);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_as_deep_as_permitted_is_copied() {
    let guest = CopyGuest::start().await;
    let deep = "d/".repeat(250);
    guest.write(&format!("deep/{deep}file"), "x");
    guest.run(&["-r", &guest.text("deep"), &guest.of_vm("copy")]).assert(0, "", "");
    guest.assert_content(&format!("copy/{deep}file"), "x");
}
