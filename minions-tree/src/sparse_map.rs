//! The parts of a file that contain data; the rest of the file are holes.

use rustix::fs::{SeekFrom, Stat, seek};
use rustix::io::Errno;
use std::fs::File;

/// Largest number of parts. A file with more parts is sent with its holes as zeros.
const MAX_PARTS: usize = 64 * 1024;

/// Size of the blocks in [`Stat::st_blocks`], in bytes.
const BLOCK_LEN: u64 = 512;

/// Parts of a file in ascending order, as offset and length. The last part ends at the end of the file.
#[derive(Debug)]
pub(crate) struct SparseMap(Vec<(u64, u64)>);

impl SparseMap {
    /// Returns the map of a file without holes.
    pub(crate) fn whole(size: u64) -> Self {
        Self(vec![(0, size)])
    }

    /// Returns the map with these parts, which must be in ascending order.
    pub(crate) fn of_parts(parts: Vec<(u64, u64)>) -> Self {
        Self(parts)
    }

    /// Returns the map of a file with holes, or `None` for another file.
    pub(crate) fn of(file: &File, stat: &Stat) -> rustix::io::Result<Option<Self>> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK_LEN);
        if allocated >= size {
            return Ok(None);
        }
        let mut parts = Vec::new();
        let mut at = 0;
        while at < size && parts.len() < MAX_PARTS {
            let begin = match seek(file, SeekFrom::Data(at)) {
                Ok(begin) => begin.min(size),
                Err(Errno::NXIO) => break,
                // The file system does not report holes.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
                Err(error) => return Err(error),
            };
            let end = seek(file, SeekFrom::Hole(begin))?.min(size);
            if end > begin {
                parts.push((begin, end - begin));
            }
            at = end.max(begin + 1);
        }
        if parts.len() >= MAX_PARTS {
            return Ok(None);
        }
        let has_end = parts.last().is_some_and(|(offset, len)| offset + len == size);
        if !has_end {
            parts.push((size, 0));
        }
        Ok(Some(Self(parts)))
    }

    /// Returns the parts.
    pub(crate) fn parts(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Returns the number of bytes in all parts.
    pub(crate) fn data_len(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }
}
