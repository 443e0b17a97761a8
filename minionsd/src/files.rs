//! Operations on files of a guest, over the stream of an exec.
//!
//! ```text
//!  caller ── input ──▶ FileStream ── ExecDriver ══ agent ── process of the operation, as the user
//!         ◀─ header ──             ◀─ standard output: a JSON line, then the data
//!         ◀─ data ────
//!         ◀─ failure ─             ◀─ standard error: JSON lines; exit status
//! ```
//!
//! After a lost connection, the driver re-attaches, without a lost or repeated byte. Dropping the stream ends the
//! operation in the guest, which then leaves no incomplete file under its final name.

use crate::exec::{DriverEvent, ExecDriver, ExecError, ExecResources, ExecTarget};
use crate::vm::Vm;
use bytes::Bytes;
use minions_proto::channel::OutputStream;
use minions_proto::file_stream::{
    FileFailure, FileHeader, FileStreamError, LineDecoder, MAX_LINE_LEN,
};
use minions_proto::frame::MAX_FRAME_LEN;
use minions_proto::message::{ExecId, Feature, FileOperation, FileStart, OnDisconnect, Outcome};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Most bytes of output before the header line is read: the line, and the first data.
const MAX_BEFORE_HEADER: usize = MAX_FRAME_LEN + MAX_LINE_LEN;

/// Largest number of warnings that are kept; further ones are only counted.
const MAX_WARNINGS: usize = 100;

/// Failure of an operation on files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The operation could not be started, or its connection was lost.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The guest refused the operation, or the operation failed.
    #[error(transparent)]
    Failed(#[from] Box<FileFailure>),
    /// The agent's streams do not have the form of a file operation.
    #[error(transparent)]
    Malformed(#[from] FileStreamError),
    /// The process of the operation ended without a result.
    #[error("the operation in the guest ended without a result: {0}")]
    NoResult(String),
}

/// Result of an operation that ran to its end.
#[derive(Debug)]
pub(crate) struct FileResult {
    /// Files that were left out, at most [`MAX_WARNINGS`].
    pub(crate) warnings: Vec<FileFailure>,
    /// Number of all files that were left out.
    pub(crate) left_out: u64,
}

/// Running operation on files.
#[derive(Debug)]
pub(crate) struct FileStream {
    driver: ExecDriver,
    /// Output up to the header line.
    head: LineDecoder,
    has_header: bool,
    /// Number of bytes that were received before the header was read.
    before_header: usize,
    /// Output that was received but not returned yet.
    output: VecDeque<Bytes>,
    errors: FailureLines,
    result: Option<Result<FileResult, FileFailureKind>>,
}

/// Failure that the operation reported, kept until all of its output has been returned.
#[derive(Debug)]
enum FileFailureKind {
    Failed(Box<FileFailure>),
    NoResult(String),
}

impl From<FileFailureKind> for FileError {
    fn from(kind: FileFailureKind) -> Self {
        match kind {
            FileFailureKind::Failed(failure) => Self::Failed(failure),
            FileFailureKind::NoResult(outcome) => Self::NoResult(outcome),
        }
    }
}

impl FileStream {
    /// Starts an operation as `user` (default: root).
    ///
    /// # Errors
    ///
    /// [`ExecError`]; in particular, an agent without the feature of the operation is too old.
    pub(crate) async fn start(
        execs: &ExecResources,
        vm: &Vm,
        id: ExecId,
        user: Option<String>,
        op: FileOperation,
        deadline: Instant,
    ) -> Result<Self, ExecError> {
        let is_session = matches!(op, FileOperation::Session(_));
        let feature = if is_session { Feature::FileSession } else { Feature::Files };
        let target = ExecTarget::with_feature(vm, feature, deadline).await?;
        let start = FileStart {
            id: Some(id.clone()),
            user,
            on_disconnect: OnDisconnect::Kill,
            reattach_grace_ms: vm.reattach_grace_ms(),
            op,
        };
        let driver = ExecDriver::open(execs, &target, id, &start, deadline).await?;
        let errors = FailureLines::default();
        Ok(Self {
            driver,
            head: LineDecoder::default(),
            // The output of a session begins with a frame, not with a header.
            has_header: is_session,
            before_header: 0,
            output: VecDeque::new(),
            errors,
            result: None,
        })
    }

    /// Returns the id of the exec that runs the operation.
    pub(crate) fn id(&self) -> &ExecId {
        &self.driver.attached().id
    }

    /// Waits until the operation has ended, even though its input has not.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub(crate) async fn ended(&mut self) -> Result<(), FileError> {
        while !matches!(self.receive().await?, FileStreamEvent::Ended) {}
        Ok(())
    }

    /// Waits for the header line.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FileError`]: the operation failed before it sent a header.
    pub(crate) async fn header(&mut self) -> Result<FileHeader, FileError> {
        loop {
            if let Some(header) = self.head.next_json()? {
                let rest = std::mem::take(&mut self.head).into_rest();
                self.output.extend(Some(rest).filter(|rest| !rest.is_empty()));
                self.has_header = true;
                return Ok(header);
            }
            match self.receive().await? {
                FileStreamEvent::Output | FileStreamEvent::Nothing => {}
                FileStreamEvent::Ended => {
                    return Err(match self.result.take() {
                        Some(Err(failure)) => failure.into(),
                        Some(Ok(_)) | None => FileError::NoResult("it sent no header".to_owned()),
                    });
                }
            }
        }
    }

    /// Waits for the next data after the header; `None` after the operation has succeeded.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FileError`]: the data is incomplete.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        loop {
            if let Some(bytes) = self.output.pop_front() {
                return Ok(Some(bytes));
            }
            if let Some(result) = self.result.take() {
                self.result = Some(Ok(result?));
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    /// Waits for the next output of a session; with `wants_room`, also for room for input.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FileError`]: the session has failed.
    pub(crate) async fn next_or_room(
        &mut self,
        wants_room: bool,
    ) -> Result<SessionStep, FileError> {
        loop {
            if let Some(bytes) = self.output.pop_front() {
                return Ok(SessionStep::Output(bytes));
            }
            if let Some(result) = self.result.take() {
                self.result = Some(Ok(result?));
                return Ok(SessionStep::Ended);
            }
            if wants_room && self.room() > 0 {
                return Ok(SessionStep::Room);
            }
            self.receive().await?;
        }
    }

    /// Returns the result after [`next`](Self::next) has returned `None`.
    pub(crate) fn into_result(self) -> FileResult {
        match self.result {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => FileResult { warnings: Vec::new(), left_out: 0 },
        }
    }

    /// Returns the number of input bytes that [`push`](Self::push) accepts now.
    pub(crate) fn room(&self) -> usize {
        self.driver.input_room()
    }

    /// Adds input, at most [`room`](Self::room) bytes.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.driver.push_input(bytes);
    }

    /// Ends the input, so that the operation completes.
    pub(crate) fn end_input(&mut self) {
        self.driver.close_input();
    }

    /// Sends input to the guest until there is room for more. Returns true if the operation has ended.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub(crate) async fn make_room(&mut self) -> Result<bool, FileError> {
        while self.room() == 0 {
            if matches!(self.receive().await?, FileStreamEvent::Ended) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Processes one event of the exec.
    ///
    /// Cancel safe.
    async fn receive(&mut self) -> Result<FileStreamEvent, FileError> {
        if self.result.is_some() {
            return Ok(FileStreamEvent::Ended);
        }
        let turns = self.driver.turns();
        match turns.take(self.driver.next()).await? {
            DriverEvent::Output(OutputStream::Stdout, _, bytes) => {
                if self.has_header {
                    self.output.extend(Some(bytes).filter(|bytes| !bytes.is_empty()));
                    return Ok(FileStreamEvent::Output);
                }
                // An operation with input sends its header last, so its output is not read meanwhile.
                self.before_header += bytes.len();
                if self.before_header > MAX_BEFORE_HEADER {
                    return Err(FileStreamError::TooLong.into());
                }
                self.head.extend(&bytes);
                Ok(FileStreamEvent::Output)
            }
            DriverEvent::Output(OutputStream::Stderr, _, bytes) => {
                self.errors.extend(&bytes)?;
                Ok(FileStreamEvent::Nothing)
            }
            DriverEvent::Gap(..) => Err(ExecError::lost("a part of the data was lost").into()),
            DriverEvent::Heartbeat | DriverEvent::InputTaken | DriverEvent::Told => {
                Ok(FileStreamEvent::Nothing)
            }
            DriverEvent::Ended(ended) => {
                self.result = Some(std::mem::take(&mut self.errors).into_result(&ended.outcome));
                Ok(FileStreamEvent::Ended)
            }
        }
    }
}

/// Progress of a session.
#[derive(Debug)]
pub(crate) enum SessionStep {
    /// More output arrived.
    Output(Bytes),
    /// Room for input.
    Room,
    /// The session has ended.
    Ended,
}

/// Progress of the operation.
enum FileStreamEvent {
    /// More output arrived.
    Output,
    /// An event that is neither output nor the end.
    Nothing,
    /// The operation has ended.
    Ended,
}

/// Standard error of the operation: failure lines.
#[derive(Debug, Default)]
struct FailureLines {
    lines: LineDecoder,
    warnings: Vec<FileFailure>,
    left_out: u64,
    failure: Option<FileFailure>,
}

impl FailureLines {
    fn extend(&mut self, bytes: &[u8]) -> Result<(), FileStreamError> {
        self.lines.extend(bytes);
        while let Some(failure) = self.lines.next_json::<FileFailure>()? {
            if !failure.warning {
                self.failure = Some(failure);
                continue;
            }
            self.left_out += 1;
            if self.warnings.len() < MAX_WARNINGS {
                self.warnings.push(failure);
            }
        }
        Ok(())
    }

    fn into_result(self, outcome: &Outcome) -> Result<FileResult, FileFailureKind> {
        let Self { warnings, left_out, failure, .. } = self;
        match (outcome, failure) {
            (Outcome::Exited { code: 1 }, Some(failure)) => {
                Err(FileFailureKind::Failed(Box::new(failure)))
            }
            (Outcome::Exited { code: 0 }, None) => Ok(FileResult { warnings, left_out }),
            (Outcome::Exited { code: 1 }, None) if left_out > 0 => {
                Ok(FileResult { warnings, left_out })
            }
            (outcome, _) => Err(FileFailureKind::NoResult(format!("{outcome:?}"))),
        }
    }
}
