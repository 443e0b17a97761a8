//! Member of a tar stream: its records, its header and its data.

use crate::content::{ContentOutput, SentContent, send_content};
use crate::files::{MODE_BITS, SET_ID};
use crate::rename_options::RenameOptions;
use crate::sparse_map::SparseMap;
use crate::tar_reader::{INCOMPLETE, MAX_RECORDS_LEN, MemberHeader, XATTR_KEY, encode_key};
use rustix::fs::{Stat, major, minor};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

/// Length of the blocks of a tar stream, in bytes.
const BLOCK_LEN: u64 = 512;

/// Parts of a sparse file that fit in its header.
const PARTS_IN_HEADER: usize = 4;

/// Parts of a sparse file that fit in each further header.
const PARTS_IN_EXTENSION: usize = 21;

/// Everything about a member that precedes its data.
pub(crate) struct TarMember {
    header: Header,
    name: Vec<u8>,
    link: Option<Vec<u8>>,
    /// PAX records.
    records: Vec<u8>,
    extensions: Vec<GnuExtSparseHeader>,
}

impl TarMember {
    /// Creates a member with this name and these attributes; `mtime` replaces the modification time.
    pub(crate) fn new(name: &[u8], stat: &Stat, mtime: Option<i64>) -> Self {
        let mut header = Header::new_gnu();
        header.set_mode(stat.st_mode & MODE_BITS);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(u64::try_from(mtime.unwrap_or(stat.st_mtime)).unwrap_or(0));
        header.set_size(0);
        let mut member = Self {
            header,
            name: name.to_vec(),
            link: None,
            records: Vec::new(),
            extensions: Vec::new(),
        };
        if mtime.is_none() && (stat.st_mtime_nsec != 0 || stat.st_mtime < 0) {
            member.record(b"mtime", time(stat).as_bytes());
        }
        member
    }

    /// Creates a copy of a member that was read from another stream, with another name and another target. Only records
    /// that are known are kept: others could give the member another name.
    pub(crate) fn renamed(
        read: &MemberHeader,
        name: &[u8],
        link: Option<&[u8]>,
        options: RenameOptions,
    ) -> Self {
        let RenameOptions { mtime, set_id, xattrs } = options;
        let mut header = Header::new_gnu();
        let (old, from) = (header.as_old_mut(), read.header.as_old());
        (old.mode, old.uid, old.gid, old.mtime) = (from.mode, from.uid, from.gid, from.mtime);
        if let (Ok(Some(major)), Ok(Some(minor))) =
            (read.header.device_major(), read.header.device_minor())
        {
            // The fields have the same form in both headers.
            let _ = header.set_device_major(major);
            let _ = header.set_device_minor(minor);
        }
        if !set_id && let Ok(mode) = read.header.mode() {
            header.set_mode(mode & MODE_BITS & !SET_ID);
        }
        if let Some(mtime) = mtime {
            header.set_mtime(u64::try_from(mtime).unwrap_or(0));
        }
        header.set_size(0);
        let mut member = Self {
            header,
            name: name.to_vec(),
            link: link.map(<[u8]>::to_vec),
            records: Vec::new(),
            extensions: Vec::new(),
        };
        for (key, value) in &read.records {
            let is_kept = match &key[..] {
                b"uid" | b"gid" | b"atime" => true,
                b"mtime" => mtime.is_none(),
                key => key.strip_prefix(XATTR_KEY).is_some_and(|name| xattrs.includes(name)),
            };
            if is_kept {
                member.record(key, value);
            }
        }
        match read.kind {
            EntryType::Regular | EntryType::Continuous => member.content(read.size, None),
            EntryType::GNUSparse => {
                let map = SparseMap::of_parts(read.parts.clone());
                member.content(read.size, Some(&map))
            }
            EntryType::Directory => member.directory(),
            kind => member.of_type(kind),
        }
    }

    /// Adds an extended attribute.
    ///
    /// # Errors
    ///
    /// `E2BIG` if the records exceed half of [`MAX_RECORDS_LEN`], which a reader accepts.
    pub(crate) fn xattr(&mut self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        if self.records.len() + name.len() + value.len() > MAX_RECORDS_LEN / 2 {
            return Err(Errno::TOOBIG);
        }
        self.record(&[XATTR_KEY, name].concat(), value);
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) {
        self.records.extend_from_slice(&pax_record(&encode_key(key), value));
    }

    pub(crate) fn of_type(mut self, kind: EntryType) -> Self {
        self.header.set_entry_type(kind);
        self
    }

    pub(crate) fn directory(mut self) -> Self {
        let end: &[u8] = if self.name.is_empty() { b"./" } else { b"/" };
        self.name.extend_from_slice(end);
        self.of_type(EntryType::Directory)
    }

    /// Makes the member a symbolic or hard link.
    pub(crate) fn link(mut self, kind: EntryType, target: &[u8]) -> Self {
        self.link = Some(target.to_vec());
        self.of_type(kind)
    }

    pub(crate) fn device(mut self, kind: EntryType, number: u64) -> Self {
        // The fields have room for all device numbers of Linux.
        let _ = self.header.set_device_major(major(number));
        let _ = self.header.set_device_minor(minor(number));
        self.of_type(kind)
    }

    /// Makes the member a regular file of this size.
    pub(crate) fn content(mut self, size: u64, map: Option<&SparseMap>) -> Self {
        let Some(map) = map else {
            self.header.set_size(size);
            return self.of_type(EntryType::Regular);
        };
        self.header.set_size(map.data_len());
        let (first, rest) = map.parts().split_at(map.parts().len().min(PARTS_IN_HEADER));
        if let Some(header) = self.header.as_gnu_mut() {
            header.set_real_size(size);
            header.set_is_extended(!rest.is_empty());
            fill(&mut header.sparse, first);
        }
        let mut chunks = rest.chunks(PARTS_IN_EXTENSION).peekable();
        while let Some(chunk) = chunks.next() {
            let mut extension = GnuExtSparseHeader::new();
            fill(extension.sparse_mut(), chunk);
            extension.set_is_extended(chunks.peek().is_some());
            self.extensions.push(extension);
        }
        self.of_type(EntryType::GNUSparse)
    }

    /// Writes everything that precedes the data.
    pub(crate) fn put(&self, output: &mut impl Write) -> io::Result<()> {
        if !self.records.is_empty() {
            put_extension(output, EntryType::XHeader, b"././@PaxHeader", &self.records)?;
        }
        let mut header = self.header.clone();
        let old = header.as_old_mut();
        if put_field(&mut old.name, &self.name).is_err() {
            put_extension(
                output,
                EntryType::GNULongName,
                b"././@LongLink",
                &terminated(&self.name),
            )?;
        }
        if let Some(link) = &self.link
            && put_field(&mut old.linkname, link).is_err()
        {
            put_extension(output, EntryType::GNULongLink, b"././@LongLink", &terminated(link))?;
        }
        header.set_cksum();
        output.write_all(header.as_bytes())?;
        self.extensions.iter().try_for_each(|extension| output.write_all(extension.as_bytes()))
    }
}

/// Encodes a PAX record: its own length in decimal, a space, the key, `=`, the value, a newline.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn terminated(text: &[u8]) -> Vec<u8> {
    [text, b"\0"].concat()
}

/// Copies text to a field of a header. If the text does not fit, copies its beginning and fails.
fn put_field(field: &mut [u8], text: &[u8]) -> Result<(), ()> {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
    if text.len() <= field.len() { Ok(()) } else { Err(()) }
}

fn fill(slots: &mut [GnuSparseHeader], parts: &[(u64, u64)]) {
    for (slot, (offset, len)) in slots.iter_mut().zip(parts) {
        slot.set_offset(*offset);
        slot.set_length(*len);
    }
}

fn put_extension(
    output: &mut impl Write,
    kind: EntryType,
    name: &[u8],
    data: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    header.set_cksum();
    output.write_all(header.as_bytes())?;
    output.write_all(data)?;
    put_padding(output, data.len() as u64)
}

/// Writes the data of a regular file, padded to whole blocks. Bytes that cannot be read are replaced by zeros,
/// because the header has announced them; the read error is returned as a value.
pub(crate) fn put_data(
    file: &mut File,
    map: &SparseMap,
    output: &mut impl ContentOutput,
) -> io::Result<Option<io::Error>> {
    let mut missing = None;
    for (offset, len) in map.parts() {
        if let Err(error) = file.seek(SeekFrom::Start(*offset)) {
            missing.get_or_insert(error);
        }
        let sent = match missing {
            None => send_content(file, *len, output)?,
            Some(_) => SentContent { missing: *len, error: None },
        };
        if sent.missing > 0 {
            missing.get_or_insert_with(|| sent.error.unwrap_or(Errno::NODATA.into()));
        }
        put_zeros(output, sent.missing)?;
    }
    put_padding(output, map.data_len())?;
    Ok(missing)
}

/// Writes a global header that marks the file before it as incomplete.
pub(crate) fn put_incomplete(output: &mut impl Write) -> io::Result<()> {
    let record = pax_record(INCOMPLETE, b"1");
    put_extension(output, EntryType::XGlobalHeader, b"././@PaxHeader", &record)
}

/// Writes the end of the stream: two empty blocks.
pub(crate) fn put_end(output: &mut impl Write) -> io::Result<()> {
    put_zeros(output, 2 * BLOCK_LEN)
}

/// Fills data of this length up to whole blocks.
pub(crate) fn put_padding(output: &mut impl Write, len: u64) -> io::Result<()> {
    put_zeros(output, padding(len))
}

fn padding(len: u64) -> u64 {
    len.next_multiple_of(BLOCK_LEN) - len
}

fn put_zeros(output: &mut impl Write, len: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(len), output).map(|_| ())
}

/// Formats the modification time as a decimal number of seconds.
fn time(stat: &Stat) -> String {
    let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec);
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    // The kernel's nanoseconds count forwards from the second; the fraction of a negative decimal counts backwards.
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
}
