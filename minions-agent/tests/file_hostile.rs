//! Tar streams that are hostile or damaged: nothing is written outside of the destination, and no part of a file.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{FileOperation, Outcome, UnpackTree};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use support::RunningAgent;
use support::file::{path, run, start, transfer};

fn unpack_of(dir: &Path) -> UnpackTree {
    UnpackTree { path: path(dir), parents: true, ..UnpackTree::default() }
}

/// Asks for everything that a stream can contain.
fn unpack_all(dir: &Path) -> FileOperation {
    FileOperation::TarIn(UnpackTree { xattrs: true, set_id: true, owners: true, ..unpack_of(dir) })
}

/// A tar stream with members of any names and types.
struct HostileTar(Vec<u8>);

impl HostileTar {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn member(mut self, name: &str, kind: tar::EntryType, link: &str, data: &[u8]) -> Self {
        self.header(name, kind, link, data.len() as u64);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn header(&mut self, name: &str, kind: tar::EntryType, link: &str, size: u64) {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn end(mut self) -> Vec<u8> {
        self.0.write_all(&[0; 1024]).unwrap();
        self.0
    }
}

#[tokio::test]
async fn a_hostile_stream_writes_nothing_outside_of_the_destination() {
    use tar::EntryType as Kind;
    let agent = RunningAgent::start().await;
    let outside = agent.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let absolute = outside.join("new").to_str().unwrap().to_owned();
    let victim = outside.join("victim").to_str().unwrap().to_owned();
    let out = outside.to_str().unwrap();
    let new = HostileTar::new;
    let streams = [
        ("parent", new().member("../outside/new", Kind::Regular, "", b"x")),
        ("inner parent", new().member("a/../../outside/new", Kind::Regular, "", b"x")),
        ("absolute", new().member(&absolute, Kind::Regular, "", b"x")),
        (
            "link, then file",
            new().member("l", Kind::Symlink, out, b"").member("l/new", Kind::Regular, "", b"x"),
        ),
        (
            "relative link",
            new().member("l", Kind::Symlink, "../outside", b"").member(
                "l/new",
                Kind::Regular,
                "",
                b"x",
            ),
        ),
        (
            "link, then directory",
            new().member("l", Kind::Symlink, out, b"").member("l/new", Kind::Directory, "", b""),
        ),
        (
            "link, then itself as directory",
            new()
                .member("l", Kind::Symlink, out, b"")
                .member("l", Kind::Directory, "", b"")
                .member("l/new", Kind::Regular, "", b"x"),
        ),
        (
            "chain of links",
            new()
                .member("a", Kind::Symlink, "..", b"")
                .member("b", Kind::Symlink, "a/outside", b"")
                .member("b/new", Kind::Regular, "", b"x"),
        ),
        ("hard link outwards", new().member("h", Kind::Link, "../outside/victim", b"")),
        ("absolute hard link", new().member("h", Kind::Link, &victim, b"")),
        (
            "hard link through a link",
            new().member("l", Kind::Symlink, out, b"").member("h", Kind::Link, "l/victim", b""),
        ),
        (
            "hard link to a link, then data",
            new()
                .member("l", Kind::Symlink, &victim, b"")
                .member("h", Kind::Link, "l", b"")
                .member("h", Kind::Regular, "", b"x"),
        ),
        (
            "link to a file, then data",
            new().member("l", Kind::Symlink, &victim, b"").member("l", Kind::Regular, "", b"x"),
        ),
        (
            "pipe through a link",
            new().member("l", Kind::Symlink, out, b"").member("l/new", Kind::Fifo, "", b""),
        ),
        ("device", new().member("disk", Kind::Block, "", b"")),
    ];
    for (what, stream) in streams {
        let to = agent.dir().join("to");
        let result = run(&agent, unpack_all(&to), &stream.end()).await;
        // The data replaces the link, or its second name.
        let is_harmless =
            ["link to a file, then data", "hard link to a link, then data"].contains(&what);
        assert_eq!(
            result.outcome == Outcome::Exited { code: 0 },
            is_harmless,
            "{what}: {result:?}"
        );
        let names: Vec<_> =
            fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["victim"], "{what}");
        assert_eq!(fs::read(outside.join("victim")).unwrap(), b"untouched", "{what}");
        assert_eq!(fs::metadata(outside.join("victim")).unwrap().nlink(), 1, "{what}");
        assert!(!to.join("disk").exists());
        fs::remove_dir_all(&to).unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_lies_about_a_size_or_ends_early_leaves_no_part_of_a_file() {
    let agent = RunningAgent::start().await;
    let to = agent.dir().join("to");
    let mut lying = HostileTar::new().member("first", tar::EntryType::Regular, "", b"complete");
    lying.header("second", tar::EntryType::Regular, "", 1 << 40);
    let lying = [lying.0, vec![b'x'; 300_000]].concat();
    let names = || {
        let names = fs::read_dir(&to)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let failure = run(&agent, unpack_all(&to), &lying).await.errno();
    assert_eq!(failure, ("EBADMSG".into(), "tar".into()));
    assert_eq!(names(), ["first"]);
    let junk = run(&agent, unpack_all(&to), &[b'j'; 2048]).await.errno();
    assert_eq!(junk, ("EBADMSG".into(), "tar".into()));

    // A long name that claims to be larger than all memory.
    let mut name = HostileTar::new();
    name.header("././@LongLink", tar::EntryType::GNULongName, "", 1 << 40);
    let name = [name.0, vec![b'x'; 300_000]].concat();
    assert_eq!(run(&agent, unpack_all(&to), &name).await.failure().errno, "EBADMSG");

    // Killed in the middle of a member.
    let stream = support::channel::Stream::open(&agent, &start(unpack_all(&to))).await.unwrap();
    let pid = i32::try_from(stream.attached.pid).unwrap();
    let mut left = Some(bytes::Bytes::from(lying));
    let source = |room: usize| {
        let bytes = left.as_mut().filter(|bytes| !bytes.is_empty());
        let sent = bytes.map(|bytes| bytes.split_to(room.min(bytes.len())));
        if sent.is_none() {
            support::kill(pid);
        }
        Some(sent.unwrap_or_default())
    };
    let (_, outcome) = transfer(stream, source, |_| {}).await;
    assert!(matches!(outcome, Outcome::Signaled { signal: 9, .. }), "{outcome:?}");
    assert_eq!(names(), ["first"]);
}
