//! Contents of a file, from the file to an output.

use crate::buffer_len;
use std::fs::File;
use std::io::{self, Read, Write};

/// Capacity of the pipe between an operation and the agent, in bytes: four times the default, so that both processes run
/// for longer at a time.
pub const PIPE_LEN: usize = 256 * 1024;

/// Receiver of the contents of files.
pub trait ContentOutput: Write {
    /// Moves a part of a file, of at most `most` bytes, to the output without copying it through this process. The default
    /// moves nothing.
    ///
    /// # Errors
    ///
    /// Failures of the output.
    fn move_part(&mut self, file: &File, most: u64) -> io::Result<MovedPart> {
        let _ = (file, most);
        Ok(MovedPart::Unsupported)
    }
}

/// Result of moving a part of a file to the output.
#[derive(Debug)]
pub enum MovedPart {
    /// Number of bytes that were moved.
    Bytes(u64),
    /// The file has ended.
    End,
    /// Data of this file, or to this output, cannot be moved. Nothing was moved.
    Unsupported,
}

/// Result of sending a part of a file.
#[derive(Debug, Default)]
pub struct SentContent {
    /// Number of bytes that were requested but not sent.
    pub missing: u64,
    /// Read error because of which bytes are missing; `None` if the file is too short.
    pub error: Option<io::Error>,
}

/// Sends the next `left` bytes of a file.
///
/// The kernel moves all but the last part to the pipe: the pipe then refers to the pages of the file, and if another
/// process shortens the file, it receives zeros. The last part, which fills the pipe, is copied, so the pipe contains no
/// more such pages when it is complete; a file that was shortened before lacks it.
///
/// # Errors
///
/// Failures of the output. Those of the file are part of the result.
pub fn send_content(
    file: &mut File,
    mut left: u64,
    output: &mut impl ContentOutput,
) -> io::Result<SentContent> {
    while left > PIPE_LEN as u64 {
        match output.move_part(file, left - PIPE_LEN as u64)? {
            MovedPart::Bytes(len) => left = left.saturating_sub(len),
            MovedPart::End => return Ok(SentContent { missing: left, error: None }),
            MovedPart::Unsupported => break,
        }
    }
    copy_content(file, left, output)
}

/// Like [`send_content`], for the last part of a file, and for files that cannot be moved.
fn copy_content(
    file: &mut File,
    mut left: u64,
    output: &mut impl Write,
) -> io::Result<SentContent> {
    let mut buffer = vec![0; buffer_len(left)];
    let mut error = None;
    while left > 0 {
        let most = buffer_len(left);
        match file.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(len) => {
                output.write_all(&buffer[..len])?;
                left -= len as u64;
            }
            Err(failed) if failed.kind() == io::ErrorKind::Interrupted => {}
            Err(failed) => {
                error = Some(failed);
                break;
            }
        }
    }
    Ok(SentContent { missing: left, error })
}
