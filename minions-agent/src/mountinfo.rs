//! Parser of `/proc/self/mountinfo` (proc(5)).
//!
//! The paths in it are any bytes, because unprivileged users can mount (fusermount, for example). A line that is not
//! understood is skipped: one user must not make the freeze or the thaw of the others, or the list of all, fail.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Line of the file, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountEntry {
    pub(crate) id: u64,
    /// Device number of the file system, as `major:minor`.
    pub(crate) device: String,
    pub(crate) mount_point: PathBuf,
    pub(crate) fs_type: String,
    pub(crate) source: String,
    /// Options of the file system; options of the mount are not included.
    pub(crate) super_options: HashSet<String>,
}

/// Reads the mounts of this process, in the order of the kernel.
pub(crate) fn read() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// Returns the mounts in the order of the kernel.
pub(crate) fn parse(mountinfo: &[u8]) -> Vec<MountEntry> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

/// Parses `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn entry(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let _parent = fields.next()?;
    let device = std::str::from_utf8(fields.next()?).ok()?.to_owned();
    let _root = fields.next()?;
    let mount_point = PathBuf::from(OsString::from_vec(unescaped(fields.next()?)));
    let _options = fields.next()?;
    // Optional fields, up to a hyphen.
    fields.find(|field| *field == b"-")?;
    let fs_type = text(fields.next()?);
    let source = text(fields.next()?);
    let super_options = text(fields.next()?).split(',').map(str::to_owned).collect();
    Some(MountEntry { id, device, mount_point, fs_type, source, super_options })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescaped(field)).into_owned()
}

/// Replaces the escapes of the kernel: a backslash with three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        match (first, octal(after)) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit)).then_some(())?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn paths_of_any_bytes_are_read_and_lines_that_are_not_understood_are_skipped() {
        let mounts = parse(
            b"36 35 98:0 /mnt1 /mnt\\0402\\134040 rw shared:7 master:1 - ext3 /dev/root rw,errors=continue\n\
              nonsense\n\
              x 35 98:0 / / rw - ext3 /dev/root rw\n\
              37 35 0:99 / /home/u/\xff\xfe rw - fuse.x \xff rw\n\
              38 35 0:98 / / rw - ext4",
        );
        let paths: Vec<_> = mounts.iter().map(|mount| mount.mount_point.as_os_str()).collect();
        assert_eq!(paths[0].as_bytes(), b"/mnt 2\\040");
        assert_eq!(paths[1].as_bytes(), b"/home/u/\xff\xfe");
        assert_eq!(paths.len(), 2);
        let first = &mounts[0];
        assert_eq!((first.id, first.device.as_str(), first.fs_type.as_str()), (36, "98:0", "ext3"));
        assert_eq!(first.source, "/dev/root");
        assert_eq!(first.super_options, ["rw", "errors=continue"].map(str::to_owned).into());
    }

    #[test]
    fn a_backslash_without_an_octal_byte_stays() {
        for plain in [&b"a\\"[..], b"a\\04", b"a\\099", b"a\\777"] {
            assert_eq!(unescaped(plain), plain);
        }
        assert_eq!(unescaped(b"\\011\\012\\040\\134\\043"), b"\t\n \\#");
    }

    proptest! {
        #[test]
        fn no_content_of_the_file_is_fatal(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
