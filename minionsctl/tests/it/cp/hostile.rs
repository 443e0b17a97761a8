//! Trees of hostile guests: nothing is written outside of the destination, and no part of a file under its name.

use super::guest::names;
use super::hostile_server::{HostileAnswer, serve};
use crate::shared::command::{Ran, ctl};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use tar::EntryType as Kind;
use tempfile::TempDir;

/// A tar stream with members of any names and types.
pub(super) struct HostileTar(pub(super) Vec<u8>);

impl HostileTar {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn member(mut self, name: &str, kind: Kind, link: &str, data: &[u8]) -> Self {
        self.header(name, kind, link, data.len() as u64);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn header(&mut self, name: &str, kind: Kind, link: &str, size: u64) {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_uid(1234);
        header.set_gid(1234);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    pub(super) fn end(self) -> Vec<u8> {
        [self.0, vec![0; 1024]].concat()
    }
}

/// A directory of the host: `to` is the destination, `outside/victim` must stay unchanged.
struct VictimHost(TempDir);

impl VictimHost {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir(host.path("to")).unwrap();
        fs::create_dir(host.path("outside")).unwrap();
        fs::write(host.path("outside/victim"), "untouched").unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn copy(&self, answer: HostileAnswer, options: &[&str], to: &str) -> Ran {
        let host = serve(answer);
        let args = [&["cp"], options, &["web-1:/tree", to]].concat();
        Ran::of(ctl(&host, &args).current_dir(self.0.path()))
    }

    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        assert_eq!(names(&self.path("outside")), ["victim"], "{what}");
        let victim = self.path("outside/victim");
        assert_eq!(fs::read(&victim).unwrap(), b"untouched", "{what}");
        assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1, "{what}");
        let above: Vec<_> = names(self.0.path());
        assert_eq!(above, ["outside", "to"], "{what}");
    }
}

#[test]
fn a_hostile_tree_writes_nothing_outside_of_the_destination() {
    let host = VictimHost::new();
    let (outside, victim) = (host.path("outside"), host.path("outside/victim"));
    let (out, victim) = (outside.to_str().unwrap(), victim.to_str().unwrap());
    let (new, absolute) = (HostileTar::new, format!("{out}/new"));
    let streams = [
        ("parent", new().member("../../outside/new", Kind::Regular, "", b"x")),
        ("inner parent", new().member("a/../../../outside/new", Kind::Regular, "", b"x")),
        ("parent of the destination", new().member("..", Kind::Directory, "", b"")),
        ("absolute", new().member(&absolute, Kind::Regular, "", b"x")),
        (
            "link, then file through it",
            new().member("l", Kind::Symlink, out, b"").member("l/new", Kind::Regular, "", b"x"),
        ),
        (
            "relative link, then file through it",
            new().member("l", Kind::Symlink, "../../outside", b"").member(
                "l/new",
                Kind::Regular,
                "",
                b"x",
            ),
        ),
        (
            "link, then directory through it",
            new().member("l", Kind::Symlink, out, b"").member("l/new", Kind::Directory, "", b""),
        ),
        (
            "link, then a directory of the same name",
            new()
                .member("l", Kind::Symlink, out, b"")
                .member("l", Kind::Directory, "", b"")
                .member("l/new", Kind::Regular, "", b"x"),
        ),
        (
            "chain of links",
            new()
                .member("a", Kind::Symlink, "../..", b"")
                .member("b", Kind::Symlink, "a/outside", b"")
                .member("b/new", Kind::Regular, "", b"x"),
        ),
        ("hard link outwards", new().member("h", Kind::Link, "../../outside/victim", b"")),
        ("absolute hard link", new().member("h", Kind::Link, victim, b"")),
        (
            "hard link through a link",
            new().member("l", Kind::Symlink, out, b"").member("h", Kind::Link, "l/victim", b""),
        ),
        (
            "hard link to a link, then data",
            new().member("l", Kind::Symlink, victim, b"").member("h", Kind::Link, "l", b"").member(
                "h",
                Kind::Regular,
                "",
                b"x",
            ),
        ),
        (
            "pipe through a link",
            new().member("l", Kind::Symlink, out, b"").member("l/new", Kind::Fifo, "", b""),
        ),
        ("device", new().member("disk", Kind::Block, "", b"")),
        ("unknown type", new().member("what", Kind::new(b'Z'), "", b"")),
    ];
    for (what, stream) in streams {
        let ran = host.copy(HostileAnswer::tree(stream.end()), &["-a"], "to");
        host.assert_untouched(what);
        // The data replaces the second name of the link.
        let is_harmless = what == "hard link to a link, then data";
        assert_eq!(ran.code, i32::from(!is_harmless), "{what}: {}", ran.stderr);
        let _ = fs::remove_dir_all(host.path("to/tree"));
    }
}

#[test]
fn a_link_in_the_existing_tree_is_not_followed() {
    let host = VictimHost::new();
    fs::create_dir(host.path("to/tree")).unwrap();
    symlink(host.path("outside"), host.path("to/tree/sub")).unwrap();
    let stream = HostileTar::new()
        .member("sub", Kind::Directory, "", b"")
        .member("sub/new", Kind::Regular, "", b"x")
        .member("sub/victim", Kind::Regular, "", b"x")
        .member("other", Kind::Regular, "", b"x");
    let ran = host.copy(HostileAnswer::tree(stream.end()), &["-r"], "to");
    host.assert_untouched("link in the tree");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(host.path("to/tree/other").exists(), "the other files are copied: {}", ran.stderr);

    // The tree itself is a link.
    fs::remove_dir_all(host.path("to/tree")).unwrap();
    symlink(host.path("outside"), host.path("to/tree")).unwrap();
    let stream = HostileTar::new().member("new", Kind::Regular, "", b"x");
    let ran = host.copy(HostileAnswer::tree(stream.end()), &["-r"], "to");
    ran.assert(1, "", "ot a directory");
    host.assert_untouched("the tree is a link");
}

#[test]
fn a_stream_of_one_file_creates_only_the_requested_name() {
    for (what, stream) in [
        ("directory", HostileTar::new().member("x/../..", Kind::Directory, "", b"")),
        ("hard link", HostileTar::new().member("f", Kind::Link, "outside/victim", b"")),
        (
            "second member",
            HostileTar::new().member("f", Kind::Regular, "", b"x").member(
                "outside/new",
                Kind::Regular,
                "",
                b"x",
            ),
        ),
    ] {
        let host = VictimHost::new();
        let answer = HostileAnswer { kind: "file", ..HostileAnswer::tree(stream.end()) };
        host.copy(answer, &["-r"], "to/file").assert(1, "", "the stream of one file contains");
        host.assert_untouched(what);
        assert!(names(&host.path("to")).iter().all(|name| name == "file"), "{what}");
    }
}

#[test]
fn privileges_and_owners_are_dropped_unless_they_are_wanted() {
    let host = VictimHost::new();
    let stream = HostileTar::new().member("su", Kind::Regular, "", b"x").end();
    let su = |options: &[&str]| {
        let ran = host.copy(HostileAnswer::tree(stream.clone()), options, "to");
        ran.assert(0, "", "");
        let su = fs::metadata(host.path("to/tree/su")).unwrap();
        (su.mode() & 0o7777, su.uid())
    };
    assert_eq!(su(&["-r"]), (0o755, 0));
    assert_eq!(su(&["-a"]), (0o755, 1234));
    assert_eq!(su(&["-a", "--set-id"]), (0o4755, 1234));
}

#[test]
fn names_of_a_guest_do_not_act_on_the_terminal() {
    let host = VictimHost::new();
    let stream = HostileTar::new().member("a\x1b]0;x\x07\nb", Kind::Block, "", b"").member(
        "ok\x1b[2J",
        Kind::Regular,
        "",
        b"x",
    );
    let ran = host.copy(HostileAnswer::tree(stream.end()), &["-r"], "to");
    assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{:?}", ran.stderr);
    assert!(!ran.stderr.contains('\x1b') && !ran.stderr.contains('\x07'), "{:?}", ran.stderr);
    assert_eq!(names(&host.path("to/tree")), ["ok\x1b[2J"]);

    // The message of a failure in the guest is the guest's.
    let failure =
        r#"{"errno":"EACCES","path":"/x","step":"open","message":"a\u001b[2Jb","warning":true}"#;
    let tree = HostileTar::new().member("ok", Kind::Regular, "", b"x").end();
    let answer = HostileAnswer { failures: Some(failure), ..HostileAnswer::tree(tree) };
    let ran = host.copy(answer, &["-r"], "to");
    assert_eq!((ran.code, ran.stderr.as_str()), (1, "a\\u{1b}[2Jb\n"));
}

#[test]
fn failures_of_a_guest_that_are_no_failures_are_refused() {
    let tree = HostileTar::new().member("ok", Kind::Regular, "", b"x").end();
    for failures in ["junk", r#"{"errno":1}"#] {
        let host = VictimHost::new();
        let answer =
            HostileAnswer { failures: Some(failures), ..HostileAnswer::tree(tree.clone()) };
        host.copy(answer, &["-r"], "to").assert(1, "", "unexpected answer");
    }
}

#[test]
fn a_stream_that_lies_or_breaks_off_leaves_no_part_of_a_file() {
    let mut lying = HostileTar::new().member("first", Kind::Regular, "", b"complete");
    lying.header("second", Kind::Regular, "", 1 << 40);
    let lying = [lying.0, vec![b'x'; 300_000]].concat();
    let mut name = HostileTar::new();
    name.header("././@LongLink", Kind::GNULongName, "", 1 << 40);
    let half = HostileTar::new().member("second", Kind::Regular, "", &[b'x'; 200_000]).0;
    let half_length = half.len() as u64;
    let answer =
        |body: Vec<u8>, length: Option<u64>| HostileAnswer { length, ..HostileAnswer::tree(body) };
    for (what, answer, message) in [
        ("size", answer(lying, None), ""),
        ("long name", answer([name.0, vec![b'x'; 300_000]].concat(), None), "too long"),
        ("cut body", answer(half[..100_000].to_vec(), Some(half_length + 1024)), "no complete"),
        ("no tar", answer(vec![b'j'; 4096], None), "not a tar stream"),
    ] {
        let host = VictimHost::new();
        host.copy(answer, &["-r"], "to").assert(1, "", message);
        let left = names(&host.path("to/tree"));
        assert!(left.is_empty() || left == ["first"], "{what}: {left:?}");
        host.assert_untouched(what);
    }
    // The contents of a file that break off.
    let host = VictimHost::new();
    let answer =
        HostileAnswer { kind: "file", length: Some(1000), ..HostileAnswer::tree(vec![b'x'; 500]) };
    host.copy(answer, &[], "to/file").assert(1, "", "no complete");
    assert!(names(&host.path("to")).is_empty());
}

#[test]
fn a_stream_without_end_is_refused() {
    let deep = "d/".repeat(40);
    let deep = (0..10).fold(HostileTar::new(), |tar, level| {
        // Each long name is a member of its own.
        let name = format!("{}f\0", deep.repeat(level + 1));
        let tar = tar.member("././@LongLink", Kind::GNULongName, "", name.as_bytes());
        tar.member("short", Kind::Regular, "", b"x")
    });
    let records = {
        let mut records = HostileTar::new();
        records.header("././@PaxHeader", Kind::XHeader, "", 1 << 30);
        records.0
    };
    let end = HostileTar::new().member("first", Kind::Regular, "", b"x").end();
    let flood = |start: Vec<u8>| HostileAnswer {
        kind: "directory",
        body: vec![(start, 1), (vec![b'x'; 64 * 1024], 1 << 20)],
        length: None,
        failures: None,
    };
    for (what, answer, message) in [
        ("deep", HostileAnswer::tree(deep.end()), "directories deep"),
        ("records", flood(records), "too long"),
        ("after the end", flood(end), "unexpected data after the last file"),
    ] {
        let host = VictimHost::new();
        let ran = host.copy(answer, &["-r"], "to");
        assert_eq!(ran.code, 1, "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains(message), "{what}: {}", ran.stderr);
        host.assert_untouched(what);
    }
}

#[test]
fn a_hostile_tree_is_not_passed_on_to_standard_output() {
    let host = VictimHost::new();
    let stream = HostileTar::new().member("../new", Kind::Regular, "", b"x").end();
    let host_url = serve(HostileAnswer::tree(stream));
    let ran = Ran::of(&mut ctl(&host_url, &["cp", "web-1:/tree", "-"]));
    ran.assert(1, "", "contains `..`");
    assert!(!String::from_utf8_lossy(&ran.stdout).contains(".."), "{:?}", ran.stdout);
    host.assert_untouched("stream");
}
