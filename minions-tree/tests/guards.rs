//! What another user of the machine, or a hostile stream, must not achieve.
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

use minions_tree::files::TreeRoot;
use minions_tree::unpack::{CreatedNames, TarReader, UnpackOptions, unpack_tree};
use minions_tree::{FileError, XattrChoice};
use rustix::fs::{Mode, fstat};
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tar::{EntryType, Header};

fn header(name: &str, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_mtime(0);
    header.set_uid(1);
    header.set_gid(1);
    header.set_size(0);
    header.set_path(name).unwrap();
    header
}

fn finished(mut header: Header) -> Vec<u8> {
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn unpack(stream: &[u8], to: &Path, options: UnpackOptions) -> Result<u64, FileError> {
    let root = TreeRoot::following_links(to).unwrap();
    let names = CreatedNames::Members { is_new: true };
    unpack_tree(&root, b"here", names, options, &mut TarReader::new(stream), &mut |_| {})
}

#[test]
fn attributes_are_set_where_no_other_user_can_exchange_the_file() {
    let dir = tempfile::tempdir().unwrap();
    // A directory in which every user may rename files.
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let root = TreeRoot::following_links(dir.path()).unwrap();
    let checked = Cell::new(0);
    let is_private = |directory: BorrowedFd<'_>, _: &OsStr| {
        let stat = fstat(directory)?;
        assert_eq!(stat.st_mode & 0o077, 0, "the directory is open to others");
        assert_ne!(stat.st_ino, fs::metadata(dir.path()).unwrap().ino());
        checked.set(checked.get() + 1);
        Ok(())
    };
    let location = |name: &[u8]| root.locate(b"", name).unwrap();
    location(b"link").publish_link(OsStr::new("target"), is_private).unwrap();
    location(b"pipe").publish_fifo(Mode::RWXU, is_private).unwrap();
    assert_eq!(checked.get(), 2);
    assert_eq!(fs::read_link(dir.path().join("link")).unwrap(), Path::new("target"));
    // A failure leaves neither the name nor the private directory.
    let failed =
        location(b"other").publish_link(OsStr::new("x"), |_, _| Err(rustix::io::Errno::IO));
    assert!(failed.is_err());
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["link", "pipe"]);
}

#[test]
fn a_new_directory_replaces_nothing_and_is_closed_until_it_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let root = TreeRoot::following_links(dir.path()).unwrap();
    let (_, is_new) = root.make_directory(b"new").unwrap();
    assert!(is_new);
    assert_eq!(fs::metadata(dir.path().join("new")).unwrap().mode() & 0o777, 0o700);
    fs::write(dir.path().join("new/inside"), "").unwrap();
    assert!(!root.make_directory(b"new").unwrap().1);
    root.make_directories(b"new/a/b").unwrap();
    root.make_directories(b"new").unwrap();
    assert!(dir.path().join("new/inside").exists() && dir.path().join("new/a/b").is_dir());
    std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
    assert!(root.make_directory(b"out").is_err() && root.make_directories(b"out/x").is_err());
    let entries = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(entries, 2);
}

#[test]
fn a_stream_without_its_end_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut stream = finished(header("a/", EntryType::Directory));
    let error = unpack(&stream, dir.path(), UnpackOptions::default()).unwrap_err();
    assert!(error.to_string().contains("its end is missing"), "{error}");
    assert!(unpack(&[], dir.path(), UnpackOptions::default()).is_err());
    stream.extend_from_slice(&[0; 512]);
    assert_eq!(unpack(&stream, dir.path(), UnpackOptions::default()).unwrap(), 1);
}

#[test]
fn the_number_that_stands_for_no_change_is_not_an_owner() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [EntryType::Directory, EntryType::Symlink, EntryType::Regular] {
        let mut header = header("a", kind);
        header.set_link_name("x").unwrap();
        header.set_uid(u64::from(u32::MAX));
        let stream = [finished(header), vec![0; 1024]].concat();
        let options = UnpackOptions { owners: true, ..UnpackOptions::default() };
        let error = unpack(&stream, dir.path(), options).unwrap_err();
        assert!(error.to_string().contains("owner"), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Returns an extended header with `count` attributes of 1,000 bytes.
fn attributes(count: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for number in 0..count {
        let rest = format!("SCHILY.xattr.user.{number:05}={}\n", "x".repeat(1000));
        // The length of the record includes its own digits and a space.
        let record = format!("{} {rest}", rest.len() + 5);
        assert_eq!(record.len(), rest.len() + 5);
        records.extend_from_slice(record.as_bytes());
    }
    let mut extension = header("pax", EntryType::XHeader);
    extension.set_size(records.len() as u64);
    let padding = records.len().wrapping_neg() % 512;
    [finished(extension), records, vec![0; padding]].concat()
}

#[test]
fn the_attributes_of_directories_that_are_not_finished_are_bounded() {
    let options = UnpackOptions { xattrs: XattrChoice::Ordinary, ..UnpackOptions::default() };
    let dir = tempfile::tempdir().unwrap();
    // Each level has 600 kB of attributes: 30 levels exceed the limit.
    let mut stream = Vec::new();
    for level in 1..=30 {
        stream.extend(attributes(600));
        stream.extend(finished(header(&"d/".repeat(level), EntryType::Directory)));
    }
    stream.extend_from_slice(&[0; 1024]);
    let error = unpack(&stream, dir.path(), options).unwrap_err();
    assert!(error.to_string().contains("too many extended attributes"), "{error}");
}

#[test]
fn the_mask_clears_permissions_of_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let stream = [
        finished(header("d/", EntryType::Directory)),
        finished(header("f", EntryType::Regular)),
        vec![0; 1024],
    ]
    .concat();
    let options = UnpackOptions { mask: 0o027, ..UnpackOptions::default() };
    assert_eq!(unpack(&stream, dir.path(), options).unwrap(), 2);
    for name in ["d", "f"] {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777, 0o750, "{name}");
    }
}
