//! Standard output and standard error of an operation.

use super::failure::{FileError, failure_line};
use minions_proto::file_stream::FileHeader;
use minions_tree::BUFFER_LEN;
use minions_tree::content::{ContentOutput, MovedPart, PIPE_LEN};
use minions_tree::pack::PackOutput;
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

/// Largest number of bytes that one call of sendfile(2) is asked for.
const SEND_LEN: u64 = 16 * 1024 * 1024;

/// The streams that an operation writes to.
#[derive(Debug)]
pub(super) struct OperationOutput {
    /// Standard output, without the line buffer of the standard library, which searches all data for newlines.
    data: Option<BufWriter<File>>,
    has_warned: bool,
}

impl OperationOutput {
    /// Takes the streams of this process.
    pub(super) fn standard() -> Self {
        let stdout = io::stdout().as_fd().try_clone_to_owned().ok().map(File::from);
        if let Some(stdout) = &stdout {
            // A user whose pipes already have the most memory that the kernel allows keeps the default.
            let _ = fcntl_setpipe_size(stdout, PIPE_LEN);
        }
        let data = stdout.map(|stdout| BufWriter::with_capacity(BUFFER_LEN, stdout));
        Self { data, has_warned: false }
    }

    /// Writes the header line.
    pub(super) fn header(&mut self, header: &FileHeader) -> Result<(), FileError> {
        self.line(header)
    }

    /// Writes one line of JSON.
    pub(super) fn line(&mut self, line: &impl Serialize) -> Result<(), FileError> {
        let mut json = minions_proto::json::to_vec(line)
            .map_err(|error| FileError::not_sent(&error.into()))?;
        json.push(b'\n');
        self.write_all(&json).map_err(|error| FileError::not_sent(&error))
    }

    /// Writes data.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.write_all(bytes).map_err(|error| FileError::not_sent(&error))
    }

    /// Sends all data that is still buffered.
    pub(super) fn finish(&mut self) -> Result<(), FileError> {
        self.flush().map_err(|error| FileError::not_sent(&error))
    }

    /// Reports the failure of one of several files; the operation continues.
    pub(super) fn warn(&mut self, error: &FileError) {
        self.has_warned = true;
        report(error, true);
    }

    /// Reports the failure of the operation.
    pub(super) fn fail(&mut self, error: &FileError) {
        // The reader recognises whether the data before the failure is complete.
        let _ = self.flush();
        report(error, false);
    }

    pub(super) fn has_warned(&self) -> bool {
        self.has_warned
    }
}

impl Write for OperationOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.data.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.data.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

impl ContentOutput for OperationOutput {
    fn move_part(&mut self, file: &File, most: u64) -> io::Result<MovedPart> {
        self.flush()?;
        let Some(data) = &self.data else { return Ok(MovedPart::Unsupported) };
        let most = usize::try_from(most.min(SEND_LEN)).unwrap_or(usize::MAX);
        loop {
            return match sendfile(data.get_ref(), file, None, most) {
                Ok(0) => Ok(MovedPart::End),
                Ok(len) => Ok(MovedPart::Bytes(len as u64)),
                Err(Errno::INTR) => continue,
                Err(Errno::PIPE) => Err(Errno::PIPE.into()),
                // The file system or its file does not support it, or memory is short. If the file cannot be read
                // either, read(2) says why.
                Err(_) => Ok(MovedPart::Unsupported),
            };
        }
    }
}

impl PackOutput for OperationOutput {
    fn warn(&mut self, error: &FileError) {
        OperationOutput::warn(self, error);
    }
}

fn report(error: &FileError, warning: bool) {
    let mut json = minions_proto::json::to_vec(&failure_line(error, warning)).unwrap_or_default();
    json.push(b'\n');
    // If standard error has no reader, there is no other way to report the failure.
    let _ = io::stderr().write_all(&json);
}
