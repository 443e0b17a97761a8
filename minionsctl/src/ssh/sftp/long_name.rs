//! Lines of `ls -l`, which clients show for the entries of a directory.

use minions_proto::file_session::SessionMetadata;
use minions_proto::file_stream::FileKind;
use std::time::{Duration, UNIX_EPOCH};

/// Returns the line of an entry: type and permissions, links, owner, group, size, time (UTC), name. The owners are
/// numbers, because their names are those of the guest.
pub(super) fn line(name: &[u8], metadata: Option<&SessionMetadata>) -> Vec<u8> {
    let mut line = match metadata {
        None => format!("?????????? {:>4} {:<8} {:<8} {:>8} {:>16} ", "?", "?", "?", "?", "?"),
        Some(metadata) => {
            let SessionMetadata { kind, size, mode, uid, gid, nlink, mtime_ns, .. } = metadata;
            let permissions = permissions(*kind, *mode);
            let time = time(*mtime_ns);
            format!("{permissions} {nlink:>4} {uid:<8} {gid:<8} {size:>8} {time} ")
        }
    }
    .into_bytes();
    line.extend_from_slice(name);
    line
}

fn permissions(kind: FileKind, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Other => '?',
    });
    for (shift, special, set, without) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Returns a time as `2026-11-30 12:34`. A time before 1970 is shown as the beginning of 1970.
fn time(nanoseconds: i64) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.get(..16).unwrap_or(&text).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_columns_of_ls() {
        let metadata = SessionMetadata {
            kind: FileKind::Directory,
            size: 4096,
            mode: 0o1777,
            uid: 0,
            gid: 1000,
            nlink: 12,
            atime_ns: 0,
            mtime_ns: 1_796_042_040_999_999_999,
        };
        let shown = line(b"t\xffmp", Some(&metadata));
        let expected = b"drwxrwxrwt   12 0        1000         4096 2026-11-30 12:34 t\xffmp";
        assert_eq!(String::from_utf8_lossy(&shown), String::from_utf8_lossy(expected));
        assert_eq!(permissions(FileKind::File, 0o6640), "-rwSr-S---");
        assert_eq!(permissions(FileKind::Symlink, 0o4755), "lrwsr-xr-x");
        assert_eq!(time(-1), "1970-01-01 00:00");
        assert!(line(b"x", None).ends_with(b" x"));
    }
}
