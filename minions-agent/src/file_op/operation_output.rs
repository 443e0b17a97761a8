//! Standard output and standard error of an operation.

use super::BUFFER_LEN;
use super::failure::OperationError;
use minions_proto::file_stream::FileHeader;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

/// The streams that an operation writes to.
#[derive(Debug)]
pub(super) struct OperationOutput {
    /// Standard output without the buffer of the standard library, which searches everything for newlines.
    data: Option<BufWriter<File>>,
    has_warned: bool,
}

impl OperationOutput {
    /// Takes the streams of this process.
    pub(super) fn standard() -> Self {
        let stdout = io::stdout().as_fd().try_clone_to_owned().ok().map(File::from);
        let data = stdout.map(|stdout| BufWriter::with_capacity(BUFFER_LEN, stdout));
        Self { data, has_warned: false }
    }

    /// Writes the header line.
    pub(super) fn header(&mut self, header: &FileHeader) -> Result<(), OperationError> {
        self.line(header)
    }

    /// Writes one line of JSON.
    pub(super) fn line(&mut self, line: &impl Serialize) -> Result<(), OperationError> {
        let mut json = serde_json::to_vec(line).map_err(|error| not_sent(&error.into()))?;
        json.push(b'\n');
        self.write_all(&json).map_err(|error| not_sent(&error))
    }

    /// Writes data.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<(), OperationError> {
        self.write_all(bytes).map_err(|error| not_sent(&error))
    }

    /// Sends everything that was written.
    pub(super) fn finish(&mut self) -> Result<(), OperationError> {
        self.flush().map_err(|error| not_sent(&error))
    }

    /// Reports the failure of one of several files; the operation continues.
    pub(super) fn warn(&mut self, error: &OperationError) {
        self.has_warned = true;
        report(error, true);
    }

    /// Reports the failure of the operation.
    pub(super) fn fail(&mut self, error: &OperationError) {
        // The data before the failure is complete in itself, or the reader recognises that it is not.
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

/// Returns the failure of a write to the host, whose reader usually is gone.
pub(super) fn not_sent(error: &io::Error) -> OperationError {
    OperationError::new(error, b"", "send")
}

fn report(error: &OperationError, warning: bool) {
    let mut json = serde_json::to_vec(&error.line(warning)).unwrap_or_default();
    json.push(b'\n');
    // Without a reader there is no other place to report it.
    let _ = io::stderr().write_all(&json);
}
