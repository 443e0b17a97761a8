//! Trees of many files, compared by rsync.

use super::guest::CopyGuest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Number of regular files in the tree, besides the unusual ones.
const FILES: usize = 5000;

/// Asserts that rsync would change nothing to make `copy` equal to `tree`.
#[track_caller]
fn assert_equal(tree: &Path, copy: &Path) {
    let mut rsync = Command::new("rsync");
    rsync.args(["-n", "--checksum", "-aHAX", "--delete", "-i", "--modify-window=-1"]);
    rsync.arg(format!("{}/", tree.display())).arg(format!("{}/", copy.display()));
    let ran = rsync.output().expect("rsync is required: apt-get install rsync");
    let (changes, errors) =
        (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && changes.is_empty(), "{changes}{errors}");
}

/// Sets the modification time of a file or link.
fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn plant(dir: &Path) {
    fs::create_dir(dir).unwrap();
    for number in 0..FILES {
        let parent = dir.join(format!("d{}", number % 50));
        fs::create_dir_all(&parent).unwrap();
        let file = parent.join(format!("f{number}"));
        fs::write(&file, format!("file {number}\n").repeat(number % 40)).unwrap();
        let mode = if number % 3 == 0 { 0o755 } else { 0o640 };
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        if number % 7 == 0 {
            symlink(format!("f{number}"), parent.join(format!("l{number}"))).unwrap();
        }
        if number % 11 == 0 {
            fs::hard_link(&file, parent.join(format!("h{number}"))).unwrap();
        }
        if number % 13 == 0 {
            chown(&file, Some(1234), Some(3_000_000)).unwrap();
        }
        let number = i64::try_from(number).unwrap();
        touch(&file, 1_600_000_000 + number, number * 7919 + 1);
    }
    let mut deep = dir.to_owned();
    for level in 0..20 {
        deep.push(format!("level-{level}"));
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("file"), "deep").unwrap();
    }
    for name in [&b"caf\xe9 \n"[..], &[b'n'; 200], b"-rf", b"a b", b"esc\x1b[2J", "ü✓".as_bytes()]
    {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let long: PathBuf = std::iter::repeat_n("directory-with-a-long-name", 6).collect();
    fs::create_dir_all(dir.join(&long)).unwrap();
    fs::write(dir.join(&long).join("file"), "deep").unwrap();
    symlink(long.join("file"), dir.join("long-link")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    touch(&dir.join("dangling"), 1_500_000_000, 123_456_789);
    let sparse = File::create(dir.join("sparse")).unwrap();
    for part in 0..100_u64 {
        sparse.write_all_at(b"data", part * 200_000).unwrap();
    }
    sparse.set_len(30_000_000).unwrap();
    File::create(dir.join("empty")).unwrap();
    touch(&dir.join("empty"), -5, 250_000_000);
    // Not every file system has attributes of users.
    let _ = setxattr(dir.join("empty"), "user.color", b"b\0l\nue", XattrFlags::empty());
    fs::create_dir(dir.join("sealed")).unwrap();
    fs::write(dir.join("sealed/inside"), "x").unwrap();
    fs::set_permissions(dir.join("sealed"), Permissions::from_mode(0o500)).unwrap();
    touch(dir, 1_400_000_000, 42);
}

fn blocks(file: &Path) -> u64 {
    fs::metadata(file).unwrap().blocks() * 512
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_the_same_after_each_direction() {
    let guest = CopyGuest::start().await;
    let tree = guest.path("tree");
    plant(&tree);
    guest.run(&["-a", "tree", &guest.of_vm("in")]).assert(0, "", "");
    assert_equal(&tree, &guest.path("in"));
    guest.run(&["-a", &guest.of_vm("in"), "out"]).assert(0, "", "");
    assert_equal(&tree, &guest.path("out"));
    guest.run(&["-a", &guest.of_vm("in"), &guest.of_vm("between")]).assert(0, "", "");
    assert_equal(&tree, &guest.path("between"));
    for copy in ["in", "out", "between"] {
        assert!(blocks(&guest.path(copy).join("sparse")) < 2_000_000, "{copy}");
    }
    // Onto itself: files are replaced, and the existing directory keeps its own attributes.
    guest.run(&["-a", "tree/.", &guest.of_vm("in")]).assert(0, "", "");
    guest.run(&["-a", &guest.of_vm("in/."), "out"]).assert(0, "", "");
    for copy in ["in", "out"] {
        touch(&guest.path(copy), 1_400_000_000, 42);
        assert_equal(&tree, &guest.path(copy));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r_copies_contents_modes_and_links_but_no_owners_and_times() {
    let guest = CopyGuest::start().await;
    guest.write("tree/run", "#!");
    fs::set_permissions(guest.path("tree/run"), Permissions::from_mode(0o711)).unwrap();
    chown(guest.path("tree/run"), Some(1234), Some(1234)).unwrap();
    touch(&guest.path("tree/run"), 1_000_000_000, 0);
    symlink("run", guest.path("tree/link")).unwrap();
    rustix::fs::mknodat(
        CWD,
        guest.path("tree/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    fs::set_permissions(guest.path("tree/fifo"), Permissions::from_mode(0o662)).unwrap();
    guest.run(&["-r", "tree", &guest.of_vm("in")]).assert(0, "", "");
    guest.run(&["-r", &guest.of_vm("tree"), "out"]).assert(0, "", "");
    guest.run(&["-r", &guest.of_vm("tree"), &guest.of_vm("between")]).assert(0, "", "");
    for copy in ["in", "out", "between"] {
        let run = fs::metadata(guest.path(copy).join("run")).unwrap();
        assert_eq!((run.mode() & 0o7777, run.uid()), (0o711, 0), "{copy}");
        assert!(run.mtime() > 1_500_000_000, "{copy}");
        assert_eq!(fs::read_link(guest.path(copy).join("link")).unwrap(), Path::new("run"));
        let fifo = fs::metadata(guest.path(copy).join("fifo")).unwrap();
        // Modes on the host are subject to the umask of minionsctl, those in a guest are not.
        let mask = if copy == "out" { umask() } else { 0 };
        assert_eq!(fifo.mode() & 0o7777, 0o662 & !mask, "{copy}");
        assert_eq!(guest.names(copy), ["fifo", "link", "run"]);
    }
}

/// Returns the umask of this process, and of the programs that it starts.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(umask.trim(), 8).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_umask_limits_copies_to_the_host_without_a() {
    let guest = CopyGuest::start().await;
    guest.write("tree/file", "x");
    fs::set_permissions(guest.path("tree/file"), Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(guest.path("tree"), Permissions::from_mode(0o777)).unwrap();
    let private = |args: &[&str]| {
        let command = guest.cp(args);
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 077; exec \"$@\"", "-"]).arg(command.get_program());
        shell.args(command.get_args()).current_dir(guest.path(""));
        let ran = shell.env("XDG_CONFIG_HOME", "/nonexistent").output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    let mode = |name: &str| fs::metadata(guest.path(name)).unwrap().mode() & 0o7777;
    private(&["-r", &guest.of_vm("tree"), "r"]);
    assert_eq!((mode("r"), mode("r/file")), (0o700, 0o600));
    private(&["-a", &guest.of_vm("tree"), "a"]);
    assert_eq!((mode("a"), mode("a/file")), (0o777, 0o666));
    private(&[&guest.of_vm("tree/file"), "file"]);
    assert_eq!(mode("file"), 0o600);
    private(&["-m", "644", &guest.of_vm("tree/file"), "file"]);
    assert_eq!(mode("file"), 0o644);
    private(&["-r", "tree", &guest.of_vm("in")]);
    assert_eq!((mode("in"), mode("in/file")), (0o777, 0o666));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_copied_are_named_and_the_others_are_copied() {
    let guest = CopyGuest::start().await;
    for name in ["a", "secret", "z"] {
        guest.write(&format!("tree/{name}"), name);
    }
    fs::set_permissions(guest.path("tree/secret"), Permissions::from_mode(0o000)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(guest.path("tree/socket")).unwrap();
    let dev = rustix::fs::makedev(1, 3);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, guest.path("tree/null"), kind, 0o600.into(), dev).unwrap();

    let ran = guest.run(&["-r", "-u", "nobody", &guest.of_vm("tree"), "out"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    for name in ["secret\": Permission denied", "socket\": a socket", "null\": device"] {
        assert!(ran.stderr.contains(name), "{name}: {}", ran.stderr);
    }
    assert_eq!(ran.stderr.lines().count(), 3, "{}", ran.stderr);
    assert_eq!(guest.names("out"), ["a", "z"]);

    let ran = guest.run(&["-r", "tree", &guest.of_vm("in")]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.stderr);
    assert_eq!(guest.names("in"), ["a", "secret", "z"]);

    guest.mkdir("between");
    fs::set_permissions(guest.path("between"), Permissions::from_mode(0o777)).unwrap();
    let ran = guest.run(&["-r", "-u", "nobody", &guest.of_vm("tree"), &guest.of_vm("between")]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (1, 3), "{}", ran.stderr);
    assert_eq!(guest.names("between/tree"), ["a", "z"]);
}
