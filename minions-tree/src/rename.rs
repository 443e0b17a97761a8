//! A tar stream with other names, for a copy from one guest to another or to standard output.

use crate::buffer_len;
use crate::error::FileError;
use crate::member_path::MemberPath;
use crate::pack::PackOutput;
use crate::sole_name::SoleName;
use crate::tar_member::{TarMember, put_end, put_incomplete, put_padding};
use crate::tar_reader::{MemberHeader, TarReader};
use rustix::io::Errno;
use std::io::{self, Read};
use tar::EntryType;

pub use crate::rename_options::RenameOptions;

/// New names of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewNames<'a> {
    /// The names in the stream.
    Same,
    /// The names in the stream, beneath a directory of this name.
    Beneath(&'a [u8]),
    /// The stream must contain one file, not a directory, which gets this name.
    Sole(SoleName<'a>),
}

impl NewNames<'_> {
    fn of_path(self, path: &MemberPath) -> Vec<u8> {
        match self {
            Self::Same => path.bytes().to_vec(),
            Self::Beneath(directory) if path.is_root() => directory.to_vec(),
            Self::Beneath(directory) => [directory, b"/", path.bytes()].concat(),
            Self::Sole(sole) => sole.name.to_vec(),
        }
    }
}

/// Copies a stream with new names, and returns the number of its members. Device files are left out, with a warning.
///
/// # Errors
///
/// A failure that ends the copy: of the input (step `tar`), an unsafe member (`member`), or of the output (`send`).
pub fn rename_members<R: Read>(
    reader: &mut TarReader<R>,
    names: NewNames<'_>,
    options: RenameOptions,
    output: &mut impl PackOutput,
) -> Result<u64, FileError> {
    let unread =
        |error: &io::Error| FileError::refusal(Errno::BADMSG, b"", "tar", &error.to_string());
    let mut count = 0;
    while let Some(member) = reader.next_member().map_err(|error| unread(&error))? {
        let path = MemberPath::new(&member.name)?;
        if let NewNames::Sole(sole) = names {
            sole.check(&member, count)?;
        }
        if member.records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
            let reason = "sparse files in PAX form are not supported";
            return Err(FileError::refusal(Errno::OPNOTSUPP, path.bytes(), "tar", reason));
        }
        if matches!(member.kind, EntryType::Char | EntryType::Block) {
            let reason = "device files are not copied";
            output.warn(&FileError::refusal(Errno::PERM, path.bytes(), "pack", reason));
            continue;
        }
        let link = match member.kind {
            EntryType::Link => Some(names.of_path(&MemberPath::new(&member.link)?)),
            EntryType::Symlink => Some(member.link.clone()),
            _ => None,
        };
        let renamed = TarMember::renamed(&member, &names.of_path(&path), link.as_deref(), options);
        renamed.put(output).map_err(|error| FileError::not_sent(&error))?;
        copy_data(&member, reader, output)?;
        if reader.is_incomplete().map_err(|error| unread(&error))? {
            put_incomplete(output).map_err(|error| FileError::not_sent(&error))?;
        }
        count += 1;
    }
    put_end(output).map_err(|error| FileError::not_sent(&error))?;
    Ok(count)
}

fn copy_data<R: Read>(
    member: &MemberHeader,
    reader: &mut TarReader<R>,
    output: &mut impl PackOutput,
) -> Result<(), FileError> {
    let size: u64 = member.parts.iter().map(|(_, len)| len).sum();
    let mut buffer = vec![0; buffer_len(size)];
    let mut left = size;
    while left > 0 {
        let most = buffer_len(left);
        reader.read_data(&mut buffer[..most]).map_err(|error| {
            FileError::refusal(Errno::BADMSG, &member.name, "tar", &error.to_string())
        })?;
        output.write_all(&buffer[..most]).map_err(|error| FileError::not_sent(&error))?;
        left -= most as u64;
    }
    put_padding(output, size).map_err(|error| FileError::not_sent(&error))
}
