//! JSON lines of an operation on files.

use crate::files::{FileError, FileStream};
use bytes::Bytes;
use minions_proto::file_stream::LineDecoder;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// JSON lines of an operation.
pub(super) struct GuestLines {
    stream: FileStream,
    lines: LineDecoder,
}

impl GuestLines {
    pub(super) fn new(stream: FileStream) -> Self {
        Self { stream, lines: LineDecoder::default() }
    }

    /// Waits for the next line; `None` after the operation has succeeded.
    ///
    /// Cancel safe.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FileError> {
        loop {
            if let Some(line) = self.lines.next_json()? {
                return Ok(Some(line));
            }
            match self.stream.next().await? {
                Some(bytes) => self.lines.extend(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// Waits for a line, and returns it together with all further lines that have arrived. The lines are parsed and
    /// encoded again, because text from a guest is never passed on unchecked.
    pub(super) async fn next_block<T>(&mut self) -> Result<Option<Bytes>, FileError>
    where
        T: DeserializeOwned + Serialize,
    {
        let Some(first) = self.next::<T>().await? else { return Ok(None) };
        let mut block = Vec::new();
        let mut line = Some(first);
        while let Some(entry) = line {
            // Entries consist of texts and numbers, so serializing cannot fail.
            block.extend(serde_json::to_vec(&entry).unwrap_or_default());
            block.push(b'\n');
            line = self.lines.next_json()?;
        }
        Ok(Some(block.into()))
    }
}
