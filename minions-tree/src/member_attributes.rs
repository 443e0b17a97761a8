//! Attributes of a member of a tar stream, and their application.

use crate::error::FileError;
use crate::files::{FileAttributes, MODE_BITS, SET_ID};
use crate::tar_reader::{MemberHeader, XATTR_KEY};
use crate::unpack_options::UnpackOptions;
use crate::xattr_choice::FILE_CAPABILITIES;
use rustix::fs::{AtFlags, Gid, Timespec, Timestamps, Uid, XattrFlags, chownat, utimensat};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use tar::Header;

/// Attributes that a created file gets.
#[derive(Debug)]
pub(crate) struct MemberAttributes {
    pub(crate) file: FileAttributes,
    times: Option<Timestamps>,
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl MemberAttributes {
    /// Reads the attributes that are to be set.
    ///
    /// # Errors
    ///
    /// A refusal for numbers or records that cannot be read.
    pub(crate) fn of(member: &MemberHeader, options: UnpackOptions) -> Result<Self, FileError> {
        let name = &member.name[..];
        let malformed = |what: &str| {
            let reason = format!("the {what} of the member cannot be read");
            FileError::refusal(Errno::BADMSG, name, "tar", &reason)
        };
        let header = &member.header;
        let mode = header.mode().map_err(|_| malformed("mode"))? & MODE_BITS;
        let mode = if options.set_id { mode } else { mode & !SET_ID };
        let mode = mode & !options.mask;
        let number =
            |number: std::io::Result<u64>| number.ok().and_then(|id| u32::try_from(id).ok());
        let owner = match options.owners {
            true => {
                // The kernel takes the largest number for "do not change".
                let is_id = |id: &u32| *id != u32::MAX;
                let uid = member.number(b"uid").unwrap_or_else(|| number(header.uid()));
                let gid = member.number(b"gid").unwrap_or_else(|| number(header.gid()));
                let (uid, gid) = (uid.filter(is_id), gid.filter(is_id));
                let (uid, gid) = uid.zip(gid).ok_or_else(|| malformed("owner"))?;
                Some((uid, gid))
            }
            false => None,
        };
        let seconds = seconds(header);
        let mut mtime = Timespec { tv_sec: seconds.ok_or_else(|| malformed("mtime"))?, tv_nsec: 0 };
        let mut xattrs = Vec::new();
        for (key, value) in &member.records {
            if key == b"mtime" {
                let text = std::str::from_utf8(value).ok();
                mtime = text.and_then(time).ok_or_else(|| malformed("mtime"))?;
            } else if key.starts_with(b"GNU.sparse.") {
                let reason =
                    "sparse files in PAX form are not supported; use GNU tar with --format=gnu";
                return Err(FileError::refusal(Errno::OPNOTSUPP, name, "tar", reason));
            } else if let Some(attribute) = key.strip_prefix(XATTR_KEY)
                && options.xattrs.includes(attribute)
                && (options.set_id || attribute != FILE_CAPABILITIES)
            {
                let attribute = CString::new(attribute).map_err(|_| malformed("records"))?;
                xattrs.push((attribute, value.clone()));
            }
        }
        let times =
            options.times.then_some(Timestamps { last_access: mtime, last_modification: mtime });
        Ok(Self { file: FileAttributes { mode, owner }, times, xattrs })
    }

    /// Returns the number of bytes of the extended attributes.
    pub(crate) fn xattrs_len(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.as_bytes().len() + value.len()).sum()
    }

    /// Sets extended attributes and times of an open file, whose owner and mode must already be set.
    pub(crate) fn finish(&self, file: &impl AsFd) -> rustix::io::Result<()> {
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        for (name, value) in &self.xattrs {
            rustix::fs::setxattr(path.as_str(), name.as_c_str(), value, XattrFlags::empty())?;
        }
        match &self.times {
            Some(times) => utimensat(rustix::fs::CWD, path.as_str(), times, AtFlags::empty()),
            None => Ok(()),
        }
    }

    /// Sets owner and times of a symbolic link or a pipe.
    pub(crate) fn finish_name(&self, directory: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
        if let Some((uid, gid)) = self.file.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(&directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        match &self.times {
            Some(times) => utimensat(&directory, name, times, AtFlags::SYMLINK_NOFOLLOW),
            None => Ok(()),
        }
    }
}

/// Returns the modification time of a header, in whole seconds.
fn seconds(header: &Header) -> Option<i64> {
    match &header.as_old().mtime {
        // GNU tar writes a negative number in two's complement. The library reads it as a large positive number.
        [0xff, _, _, _, number @ ..] => Some(i64::from_be_bytes(*number)),
        _ => header.mtime().ok().and_then(|mtime| i64::try_from(mtime).ok()),
    }
}

/// Parses a decimal number of seconds.
fn time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    Some(match is_negative && nanoseconds > 0 {
        true => Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanoseconds },
        false => Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers_of_either_sign() {
        let parsed = |text| time(text).map(|time| (time.tv_sec, time.tv_nsec));
        assert_eq!(parsed("1700000000"), Some((1_700_000_000, 0)));
        assert_eq!(parsed("1700000000.000000001"), Some((1_700_000_000, 1)));
        assert_eq!(parsed("1.5"), Some((1, 500_000_000)));
        assert_eq!(parsed("1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(parsed("-1.250000000"), Some((-2, 750_000_000)));
        assert_eq!(parsed("-0.5"), Some((-1, 500_000_000)));
        for text in ["", ".5", "1.x", "1e9", "99999999999999999999"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
