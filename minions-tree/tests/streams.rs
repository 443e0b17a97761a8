//! Tar streams of trees: files that change while they are packed, and streams with other names.
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

use minions_tree::content::{ContentOutput, MovedPart, PIPE_LEN};
use minions_tree::files::TreeRoot;
use minions_tree::pack::{PackOptions, PackOutput, pack_tree};
use minions_tree::rename::{NewNames, RenameOptions, rename_members};
use minions_tree::unpack::{CreatedNames, TarReader, UnpackOptions, unpack_tree};
use minions_tree::walk::open_as_path;
use minions_tree::{FileError, SoleName, XattrChoice};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Stream in memory. Shortens a file when its first data arrives.
#[derive(Default)]
struct MemoryOutput {
    stream: Vec<u8>,
    warnings: Vec<String>,
    shortened: Option<PathBuf>,
    /// Numbers of bytes of files that were moved to the stream.
    moved: Option<Vec<usize>>,
}

impl Write for MemoryOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.starts_with(b"xxxx")
            && let Some(path) = self.shortened.take()
        {
            OpenOptions::new().write(true).open(path)?.set_len(10)?;
        }
        self.stream.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ContentOutput for MemoryOutput {
    fn move_part(&mut self, file: &File, most: u64) -> io::Result<MovedPart> {
        let Some(moved) = &mut self.moved else { return Ok(MovedPart::Unsupported) };
        let mut part = Vec::new();
        file.take(most).read_to_end(&mut part)?;
        moved.push(part.len());
        self.write_all(&part)?;
        Ok(if part.is_empty() { MovedPart::End } else { MovedPart::Bytes(part.len() as u64) })
    }
}

impl PackOutput for MemoryOutput {
    fn warn(&mut self, error: &FileError) {
        self.warnings.push(error.to_string());
    }
}

fn pack(dir: &Path, output: &mut MemoryOutput) {
    let path = dir.as_os_str().as_bytes();
    let root = open_as_path(path, false).unwrap();
    let options = PackOptions { xattrs: XattrChoice::All, devices: true, mtime: None };
    pack_tree(&root, path, b"file", options, output).unwrap();
}

/// Unpacks a stream, and returns the number of files and the warnings.
fn unpack(stream: &[u8], to: &Path) -> Result<(u64, Vec<String>), FileError> {
    fs::create_dir(to).unwrap();
    let root = TreeRoot::following_links(to).unwrap();
    let mut warnings = Vec::new();
    let mut warn = |error: &FileError| warnings.push(error.to_string());
    let options =
        UnpackOptions { times: true, xattrs: XattrChoice::All, ..UnpackOptions::default() };
    let names = CreatedNames::Members { is_new: true };
    let mut reader = TarReader::new(stream);
    let count = unpack_tree(&root, b"to", names, options, &mut reader, &mut warn)?;
    Ok((count, warnings))
}

/// Returns names and contents of a stream, as the `tar` crate reads them.
fn members(stream: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(stream);
    let members = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        if let Some(link) = entry.link_name_bytes() {
            content = format!("-> {}", String::from_utf8_lossy(&link));
        }
        (name, content)
    });
    members.collect()
}

fn rename(stream: &[u8], names: NewNames<'_>) -> Result<MemoryOutput, FileError> {
    let mut output = MemoryOutput::default();
    let options = RenameOptions { xattrs: XattrChoice::Ordinary, ..RenameOptions::default() };
    rename_members(&mut TarReader::new(stream), names, options, &mut output)?;
    Ok(output)
}

#[test]
fn a_file_that_becomes_shorter_is_marked_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("shrinks"), vec![b'x'; 500_000]).unwrap();
    for name in ["a", "z"] {
        fs::write(from.join(name), name).unwrap();
    }
    let mut output =
        MemoryOutput { shortened: Some(from.join("shrinks")), ..MemoryOutput::default() };
    pack(&from, &mut output);
    assert_eq!(output.warnings.len(), 1, "{:?}", output.warnings);
    assert!(output.warnings[0].contains("shrinks"), "{:?}", output.warnings);
    let mark = b"24 MINIONS.incomplete=1\n";
    assert!(output.stream.windows(mark.len()).any(|bytes| bytes == mark));

    let renamed = rename(&output.stream, NewNames::Beneath(b"d")).unwrap();
    for (number, stream) in [&output.stream, &renamed.stream].into_iter().enumerate() {
        let to = dir.path().join(format!("to-{number}"));
        let (count, warnings) = unpack(stream, &to).unwrap();
        assert_eq!((count, warnings.len()), (3, 1), "{warnings:?}");
        assert!(warnings[0].contains("could not read the whole file"), "{warnings:?}");
        let inside = if number == 0 { to } else { to.join("d") };
        assert!(!inside.join("shrinks").exists());
        assert_eq!(fs::read(inside.join("z")).unwrap(), b"z");
    }
    // Programs that do not know the mark see the file with zeros.
    let mut archive = tar::Archive::new(&output.stream[..]);
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
    assert!(names.into_iter().any(|name| name == Path::new("shrinks")));
}

#[test]
fn the_last_part_of_a_moved_file_is_copied_so_a_file_that_was_shortened_is_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let content = vec![b'x'; PIPE_LEN + 1000];
    fs::write(from.join("large"), &content).unwrap();
    let mut whole = MemoryOutput { moved: Some(Vec::new()), ..MemoryOutput::default() };
    pack(&from, &mut whole);
    assert_eq!(whole.moved, Some(vec![1000]));
    let unpacked = dir.path().join("unpacked");
    assert_eq!(unpack(&whole.stream, &unpacked).unwrap(), (2, Vec::new()));
    assert_eq!(fs::read(unpacked.join("large")).unwrap(), content);

    let shortened = Some(from.join("large"));
    let mut cut = MemoryOutput { moved: Some(Vec::new()), shortened, ..MemoryOutput::default() };
    pack(&from, &mut cut);
    assert_eq!((cut.moved, cut.warnings.len()), (Some(vec![1000]), 1), "{:?}", cut.warnings);
    let incomplete = dir.path().join("incomplete");
    let (_, warnings) = unpack(&cut.stream, &incomplete).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(!incomplete.join("large").exists());
}

#[test]
fn a_stream_gets_other_names_and_keeps_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let long = "n".repeat(150);
    fs::create_dir_all(from.join("deep")).unwrap();
    fs::write(from.join("deep").join(&long), "long").unwrap();
    fs::hard_link(from.join("deep").join(&long), from.join("hard")).unwrap();
    std::os::unix::fs::symlink("../target", from.join("link")).unwrap();
    File::create(from.join("hole")).unwrap().set_len(10_000_000).unwrap();
    let mut output = MemoryOutput::default();
    pack(&from, &mut output);
    let same = rename(&output.stream, NewNames::Same).unwrap();
    assert!(same.stream.len() < 50_000, "holes stay holes: {}", same.stream.len());
    let read = |stream: &[u8], to: &str| {
        let to = dir.path().join(to);
        unpack(stream, &to).unwrap();
        to
    };
    let (same, beneath) =
        (read(&same.stream, "same"), rename(&output.stream, NewNames::Beneath(b"new")).unwrap());
    let beneath = read(&beneath.stream, "beneath").join("new");
    for to in [same, beneath] {
        let link = fs::metadata(to.join("hard")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&link), 2, "{}", to.display());
        assert_eq!(fs::read(to.join("deep").join(&long)).unwrap(), b"long");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("../target"));
        assert_eq!(fs::metadata(to.join("hole")).unwrap().len(), 10_000_000);
    }
}

#[test]
fn the_stream_of_one_file_gets_the_requested_name_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "text").unwrap();
    let mut output = MemoryOutput::default();
    pack(&dir.path().join("file"), &mut output);
    let sole =
        rename(&output.stream, NewNames::Sole(SoleName { name: b"new", symlink: false })).unwrap();
    assert_eq!(members(&sole.stream), BTreeMap::from([("new".into(), "text".into())]));
    let mut tree = MemoryOutput::default();
    pack(dir.path(), &mut tree);
    assert!(
        rename(&tree.stream, NewNames::Sole(SoleName { name: b"new", symlink: false })).is_err()
    );
}

#[test]
fn attributes_with_a_meaning_for_the_system_are_not_passed_on() {
    let mut builder = tar::Builder::new(Vec::new());
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.a", b"1"),
        ("SCHILY.xattr.security.capability", b"2"),
        ("SCHILY.xattr.trusted.b", b"3"),
        ("path", b"other"),
    ];
    builder.append_pax_extensions(records).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("file").unwrap();
    header.set_size(1);
    header.set_mode(0o600);
    header.set_cksum();
    builder.append(&header, &b"x"[..]).unwrap();
    let renamed = rename(&builder.into_inner().unwrap(), NewNames::Beneath(b"d")).unwrap();
    let mut archive = tar::Archive::new(&renamed.stream[..]);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path_bytes().to_vec(), b"d/other");
    let keys: Vec<_> = entry
        .pax_extensions()
        .unwrap()
        .unwrap()
        .map(|record| record.unwrap().key().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["SCHILY.xattr.user.a"]);
}

#[test]
fn hard_links_of_symbolic_links_and_named_pipes_and_unusual_attributes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    std::os::unix::fs::symlink("target", from.join("link-1")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, from.join("pipe-1"), rustix::fs::Mode::RWXU).unwrap();
    for kind in ["link", "pipe"] {
        fs::hard_link(from.join(format!("{kind}-1")), from.join(format!("{kind}-2"))).unwrap();
    }
    fs::write(from.join("file"), "content").unwrap();
    let attribute = "user.a=b%25c%";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(from.join("file"), attribute, b"x=y", flags).unwrap();
    let mut output = MemoryOutput::default();
    pack(&from, &mut output);
    assert_eq!(output.warnings, Vec::<String>::new());
    let renamed = rename(&output.stream, NewNames::Same).unwrap();
    for (number, stream) in [&output.stream, &renamed.stream].into_iter().enumerate() {
        let to = to.with_extension(number.to_string());
        assert_eq!(unpack(stream, &to).unwrap(), (6, Vec::new()));
        for kind in ["link", "pipe"] {
            let names = [1, 2].map(|n| to.join(format!("{kind}-{n}")));
            let [one, two] = names.map(|name| fs::symlink_metadata(name).unwrap());
            assert_eq!((one.ino(), one.nlink()), (two.ino(), 2), "{kind}");
        }
        assert_eq!(fs::read_link(to.join("link-2")).unwrap(), Path::new("target"));
        let mut value = [0; 16];
        let len = rustix::fs::getxattr(to.join("file"), attribute, &mut value).unwrap();
        assert_eq!(&value[..len], b"x=y");
    }
}

#[test]
fn the_second_name_of_a_file_that_was_not_sent_whole_is_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("a"), vec![b'x'; 400_000]).unwrap();
    fs::hard_link(from.join("a"), from.join("b")).unwrap();
    let mut output = MemoryOutput { shortened: Some(from.join("a")), ..MemoryOutput::default() };
    pack(&from, &mut output);
    let (count, warnings) = unpack(&output.stream, &to).unwrap();
    assert_eq!((count, warnings.len()), (2, 1), "{warnings:?}");
    let names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(fs::read(&names[0]).unwrap(), b"xxxxxxxxxx");
    assert_eq!(fs::metadata(&names[0]).unwrap().nlink(), 1);
}
