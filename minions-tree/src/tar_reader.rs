//! Reads the members of a tar stream: GNU tar's format, and PAX.
//!
//! The `tar` crate decodes the headers. Its reader of whole streams is not used, because it keeps names and records
//! in memory without a limit, and ends a PAX record at the first newline in its value.

use rustix::io::Errno;
use std::io::{self, BufReader, Read};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

/// Length of the blocks of a tar stream, in bytes.
const BLOCK_LEN: usize = 512;

/// Number of bytes that are read ahead: headers and small files. Large parts of large files are not buffered.
const READ_AHEAD: usize = 16 * 1024;

/// Maximum length of a long name, in bytes: the kernel's limit for paths, including the final NUL.
const MAX_NAME_LEN: usize = 4096;

/// Maximum length of all PAX records of one member, in bytes. The value of an extended attribute has at most 64 KiB.
pub(crate) const MAX_RECORDS_LEN: usize = 1024 * 1024;

/// Largest number of parts of a sparse file.
const MAX_PARTS: usize = 256 * 1024;

/// Key of the record in a global header that marks the file before it as incomplete.
pub(crate) const INCOMPLETE: &[u8] = b"MINIONS.incomplete";

/// Prefix of the keys of the records with extended attributes.
pub(crate) const XATTR_KEY: &[u8] = b"SCHILY.xattr.";

/// Header of a member, with everything that extends it.
pub(crate) struct MemberHeader {
    pub(crate) header: Header,
    pub(crate) kind: EntryType,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    /// PAX records of the member, as key and value.
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Parts of a regular file that the stream contains, as offset and length.
    pub(crate) parts: Vec<(u64, u64)>,
    /// Size of a regular file.
    pub(crate) size: u64,
}

impl MemberHeader {
    /// Returns the number in a record: `None` if there is no such record, `Some(None)` if its value is invalid.
    pub(crate) fn number(&self, key: &[u8]) -> Option<Option<u32>> {
        let (_, value) = self.records.iter().find(|(name, _)| name == key)?;
        Some(number(value).and_then(|number| u32::try_from(number).ok()))
    }
}

/// Reads members, and the data of the current one.
#[derive(Debug)]
pub struct TarReader<R> {
    input: BufReader<R>,
    /// Header that was read ahead.
    ahead: Option<Header>,
    has_ended: bool,
    /// Bytes of the current member that have not been read, excluding the padding.
    left: u64,
    padding: u64,
}

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<R: Read> TarReader<R> {
    /// Creates a reader of a stream.
    pub fn new(input: R) -> Self {
        let input = BufReader::with_capacity(READ_AHEAD, input);
        Self { input, ahead: None, has_ended: false, left: 0, padding: 0 }
    }

    /// Returns the input. Bytes that were read ahead, which come after the end of the stream, are dropped.
    pub fn into_inner(self) -> R {
        self.input.into_inner()
    }

    /// Skips the rest of the current member and reads the next header; `None` at the end of the stream.
    pub(crate) fn next_member(&mut self) -> io::Result<Option<MemberHeader>> {
        let (mut long_name, mut long_link, mut records) = (None, None, Vec::new());
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::XHeader => {
                    records = parse_records(&self.extension(size, MAX_RECORDS_LEN)?)?
                }
                EntryType::GNULongName => long_name = Some(self.name(size)?),
                EntryType::GNULongLink => long_link = Some(self.name(size)?),
                EntryType::XGlobalHeader => self.begin_data(size),
                kind => {
                    let record = |key: &[u8]| records.iter().find(|(name, _)| name == key);
                    let value = |key| record(key).map(|(_, value): &(_, Vec<u8>)| value.clone());
                    let name = value(b"path").or(long_name);
                    let link = value(b"linkpath").or(long_link);
                    let size = match value(b"size") {
                        None => size,
                        Some(text) => number(&text).ok_or_else(|| malformed("invalid size"))?,
                    };
                    let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
                    let link = link.unwrap_or_else(|| {
                        header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default()
                    });
                    let (parts, real_size) = self.parts(&header, size)?;
                    return Ok(Some(MemberHeader {
                        header,
                        kind,
                        name,
                        link,
                        records,
                        parts,
                        size: real_size,
                    }));
                }
            }
        }
    }

    /// Returns the parts and the size of a regular file, and prepares to read its data.
    fn parts(&mut self, header: &Header, size: u64) -> io::Result<(Vec<(u64, u64)>, u64)> {
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                self.begin_data(size);
                Ok((vec![(0, size)], size))
            }
            EntryType::GNUSparse => {
                let gnu =
                    header.as_gnu().ok_or_else(|| malformed("sparse file without a GNU header"))?;
                let real_size = gnu.real_size()?;
                let mut parts = Vec::new();
                add_parts(&mut parts, &gnu.sparse)?;
                let mut is_extended = gnu.is_extended();
                while is_extended {
                    let mut extension = GnuExtSparseHeader::new();
                    self.input.read_exact(extension.as_mut_bytes())?;
                    add_parts(&mut parts, extension.sparse())?;
                    is_extended = extension.is_extended();
                }
                check_parts(&parts, size, real_size)?;
                self.begin_data(size);
                Ok((parts, real_size))
            }
            // Members of other types have no data, even if the header has a size.
            _ => Ok((Vec::new(), 0)),
        }
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK_LEN as u64;
    }

    /// Fills the buffer with data of the current member, which must have at least that many bytes left.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.left =
            self.left.checked_sub(buffer.len() as u64).ok_or_else(|| malformed("no data left"))?;
        self.input.read_exact(buffer)
    }

    /// Skips the rest of the current member, and reports whether the sender has marked the member as incomplete.
    pub(crate) fn is_incomplete(&mut self) -> io::Result<bool> {
        let Some(header) = self.header()? else { return Ok(false) };
        let size = header.entry_size()?;
        if header.entry_type() != EntryType::XGlobalHeader || size > MAX_NAME_LEN as u64 {
            self.ahead = Some(header);
            return Ok(false);
        }
        let records = parse_records(&self.extension(size, MAX_NAME_LEN)?)?;
        Ok(records.iter().any(|(key, _)| key == INCOMPLETE))
    }

    /// Skips the rest of the current member and reads a header; `None` for an empty block, which every writer of the format
    /// puts at the end. Without it, the stream was cut.
    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.has_ended || self.ahead.is_some() {
            return Ok(self.ahead.take());
        }
        self.skip(self.left.saturating_add(self.padding))?;
        (self.left, self.padding) = (0, 0);
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut len = 0;
        while len < BLOCK_LEN {
            match self.input.read(&mut block[len..])? {
                0 if len == 0 => return Err(malformed("the stream was cut: its end is missing")),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => len += read,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            self.has_ended = true;
            return Ok(None);
        }
        // For the sum, the checksum field itself consists of spaces.
        let sum = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) });
        let sum: u32 = sum.sum();
        if header.cksum().ok() != Some(sum) {
            return Err(malformed("the checksum of a header is wrong: this is not a tar stream"));
        }
        Ok(Some(header))
    }

    /// Reads the data of a header that extends the next member.
    fn extension(&mut self, size: u64, most: usize) -> io::Result<Vec<u8>> {
        if size > most as u64 {
            return Err(malformed("a name or record is too long"));
        }
        self.begin_data(size);
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_data(&mut data)?;
        Ok(data)
    }

    fn name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.extension(size, MAX_NAME_LEN)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.input).take(len), &mut io::sink())?;
        if skipped == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Parses PAX records: for each, its length in decimal, a space, the key, `=`, the value, and a newline.
fn parse_records(mut data: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    // Some programs pad the records with zeros.
    while data.first().is_some_and(|first| *first != 0) {
        let record = record(data).ok_or_else(|| malformed("malformed PAX record"))?;
        let (whole, key, value) = record;
        records.push((decode_key(key), value.to_vec()));
        data = &data[whole..];
    }
    Ok(records)
}

/// Characters that GNU tar replaces in the key of an extended attribute, because the first `=` ends the key, and the
/// replacements.
const REPLACED: [(u8, &[u8]); 2] = [(b'%', b"%25"), (b'=', b"%3D")];

/// Replaces the characters in the key of a record that such a key cannot contain. A key that is read back unchanged stays as
/// it is: versions before this one do not decode keys.
pub(crate) fn encode_key(key: &[u8]) -> Vec<u8> {
    let is_plain = !key.contains(&b'=') && decode_key(key) == key;
    if is_plain || !key.starts_with(XATTR_KEY) {
        return key.to_vec();
    }
    let mut encoded = Vec::with_capacity(key.len());
    for byte in key {
        match REPLACED.iter().find(|(replaced, _)| replaced == byte) {
            Some((_, replacement)) => encoded.extend_from_slice(replacement),
            None => encoded.push(*byte),
        }
    }
    encoded
}

/// Reverses [`encode_key`].
fn decode_key(mut key: &[u8]) -> Vec<u8> {
    if !key.starts_with(XATTR_KEY) {
        return key.to_vec();
    }
    let mut decoded = Vec::with_capacity(key.len());
    while let Some((first, rest)) = key.split_first() {
        match REPLACED.iter().find(|(_, replacement)| key.starts_with(replacement)) {
            Some((replaced, replacement)) => {
                decoded.push(*replaced);
                key = &key[replacement.len()..];
            }
            None => {
                decoded.push(*first);
                key = rest;
            }
        }
    }
    decoded
}

/// Returns length, key and value of the first record.
fn record(data: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let len = usize::try_from(number(&data[..space])?).ok()?;
    let text = data.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((len, &text[..equals], &text[equals + 1..]))
}

/// Parses a decimal number.
fn number(text: &[u8]) -> Option<u64> {
    let is_decimal = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_decimal.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn add_parts(parts: &mut Vec<(u64, u64)>, slots: &[GnuSparseHeader]) -> io::Result<()> {
    for slot in slots.iter().filter(|slot| !slot.is_empty()) {
        if parts.len() >= MAX_PARTS {
            return Err(Errno::OVERFLOW.into());
        }
        parts.push((slot.offset()?, slot.length()?));
    }
    Ok(())
}

/// Checks that the parts are in order, within the file, and together as long as the data.
fn check_parts(parts: &[(u64, u64)], size: u64, real_size: u64) -> io::Result<()> {
    let invalid = || malformed("the parts of a sparse file contradict its size");
    let (mut end, mut sum) = (0, 0_u64);
    for (offset, len) in parts {
        if *offset < end {
            return Err(invalid());
        }
        end = offset.checked_add(*len).ok_or_else(invalid)?;
        sum = sum.checked_add(*len).ok_or_else(invalid)?;
    }
    if end > real_size || sum != size { Err(invalid()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_may_contain_newlines_and_its_length_is_its_own() {
        let records = parse_records(b"11 a=b\nc=d\n15 key=\0value\n\n\0\0").unwrap();
        let expected: [(&[u8], &[u8]); 2] = [(b"a", b"b\nc=d"), (b"key", b"\0value\n")];
        let found: Vec<_> = records.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        assert_eq!(found, expected);
        for junk in [&b"x"[..], b"99 a=b\n", b"6 a=b ", b"5 ab\n\n", b"0 \n", b"+6 a=b\n"] {
            assert!(parse_records(junk).is_err(), "{}", junk.escape_ascii());
        }
    }

    #[test]
    fn the_name_of_an_extended_attribute_may_contain_what_ends_a_key() {
        let read = |records: &[u8]| parse_records(records).unwrap().remove(0);
        // As GNU tar writes the attribute `user.k=%1`.
        let written = b"36 SCHILY.xattr.user.k%3D%251=a=%3D\n";
        let name = b"SCHILY.xattr.user.k=%1".to_vec();
        assert_eq!(read(written), (name.clone(), b"a=%3D".to_vec()));
        assert_eq!(encode_key(&name), b"SCHILY.xattr.user.k%3D%251");
        // Other keys, and other percent signs, are unchanged.
        for key in ["path%3D", "SCHILY.xattr.user.100%", "SCHILY.xattr.user.%2"] {
            assert_eq!(decode_key(key.as_bytes()), key.as_bytes());
        }
        for key in ["path%", "SCHILY.xattr.user.100%"] {
            assert_eq!(encode_key(key.as_bytes()), key.as_bytes());
        }
    }

    #[test]
    fn parts_of_a_sparse_file_must_fit_it() {
        check_parts(&[(0, 5), (10, 5), (20, 0)], 10, 20).unwrap();
        for (parts, size, real) in [
            (&[(0, 5)][..], 6, 10),
            (&[(0, 5)], 5, 4),
            (&[(5, 5), (0, 5)], 10, 10),
            (&[(0, 5), (4, 5)], 10, 10),
            (&[(u64::MAX, 1)], 1, u64::MAX),
        ] {
            assert!(check_parts(parts, size, real).is_err(), "{parts:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_members_or_an_error(bytes in any::<Vec<u8>>(), kind in any::<u8>(), size in any::<u64>()) {
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[..bytes.len().min(512)].copy_from_slice(&bytes[..bytes.len().min(512)]);
            header.as_old_mut().linkflag = [kind];
            header.set_size(size);
            header.set_cksum();
            let stream = [&header.as_bytes()[..], &bytes, &[b'x'; 2048]].concat();
            let mut reader = TarReader::new(&stream[..]);
            while let Ok(Some(member)) = reader.next_member() {
                prop_assert!(member.records.len() < 1000);
            }
        }
    }
}
