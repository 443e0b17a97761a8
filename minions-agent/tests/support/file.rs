//! The host's end of an operation on files.

use super::channel::Stream;
use super::{RunningAgent, SOON};
use bytes::{Bytes, BytesMut};
use minions_proto::AgentError;
use minions_proto::channel::{ChannelMessage, OutputStream};
use minions_proto::exec_client::{ExecClient, StreamEvent};
use minions_proto::file_stream::{FileFailure, FileHeader, LineDecoder};
use minions_proto::message::{FileOperation, FileStart, GuestPath, Outcome};
use std::path::Path;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Everything that an operation sent.
#[derive(Debug)]
pub(crate) struct FileResult {
    pub(crate) stdout: Vec<u8>,
    pub(crate) failures: Vec<FileFailure>,
    pub(crate) outcome: Outcome,
}

impl FileResult {
    /// Returns the header of an operation that succeeded, and the data after it.
    #[track_caller]
    pub(crate) fn success(self) -> (FileHeader, Vec<u8>) {
        assert_eq!(self.outcome, Outcome::Exited { code: 0 }, "{:?}", self.failures);
        assert_eq!(self.failures, []);
        self.header()
    }

    #[track_caller]
    pub(crate) fn header(self) -> (FileHeader, Vec<u8>) {
        let mut lines = LineDecoder::default();
        lines.extend(&self.stdout);
        let header = lines.next_json().unwrap().expect("a header line");
        (header, lines.into_rest().to_vec())
    }

    /// Returns the failure of an operation.
    #[track_caller]
    pub(crate) fn failure(mut self) -> FileFailure {
        assert_eq!(self.outcome, Outcome::Exited { code: 1 }, "{:?}", self.failures);
        let last = self.failures.pop().expect("a failure line");
        assert!(!last.warning, "{last:?}");
        last
    }

    /// Returns error number and step of a failure.
    #[track_caller]
    pub(crate) fn errno(self) -> (String, String) {
        let failure = self.failure();
        (failure.errno, failure.step)
    }
}

pub(crate) fn path(path: &Path) -> GuestPath {
    GuestPath::new(path.as_os_str().as_encoded_bytes())
}

pub(crate) fn start(op: FileOperation) -> FileStart {
    FileStart {
        id: None,
        user: None,
        on_disconnect: Default::default(),
        reattach_grace_ms: None,
        op,
    }
}

/// Runs an operation with this input.
pub(crate) async fn run(agent: &RunningAgent, op: FileOperation, input: &[u8]) -> FileResult {
    run_start(agent, start(op), input).await.unwrap()
}

/// Runs an operation as this user.
pub(crate) async fn run_as(
    agent: &RunningAgent,
    user: &str,
    op: FileOperation,
    input: &[u8],
) -> FileResult {
    let start = FileStart { user: Some(user.to_owned()), ..start(op) };
    run_start(agent, start, input).await.unwrap()
}

pub(crate) async fn run_start(
    agent: &RunningAgent,
    start: FileStart,
    input: &[u8],
) -> Result<FileResult, AgentError> {
    let stream = Stream::open(agent, &start).await?;
    let mut stdout = Vec::new();
    let mut input = Bytes::copy_from_slice(input);
    let source =
        |room: usize| Some(input.split_to(room.min(input.len()))).filter(|b| !b.is_empty());
    let (failures, outcome) =
        transfer(stream, source, |bytes| stdout.extend_from_slice(bytes)).await;
    Ok(FileResult { stdout, failures, outcome })
}

/// Moves input and output of an operation until its end. `source` returns at most this many bytes of input, and `None`
/// at its end.
pub(crate) async fn transfer(
    stream: Stream,
    mut source: impl FnMut(usize) -> Option<Bytes>,
    mut sink: impl FnMut(&[u8]),
) -> (Vec<FileFailure>, Outcome) {
    let mut client = ExecClient::new(&stream.attached, Instant::now()).unwrap();
    let (socket, mut decoder) = stream.into_parts();
    let (mut read, mut write) = socket.into_split();
    let (mut out, mut lines, mut failures) = (BytesMut::new(), LineDecoder::default(), Vec::new());
    loop {
        // The first messages may have arrived together with the reply.
        while let Some(payload) = decoder.next_frame().unwrap() {
            let message = ChannelMessage::decode(payload).unwrap();
            match client.receive(message, Instant::now()).unwrap() {
                StreamEvent::Output(OutputStream::Stdout, bytes) => sink(&bytes),
                StreamEvent::Output(OutputStream::Stderr, bytes) => {
                    lines.extend(&bytes);
                    while let Some(failure) = lines.next_json().unwrap() {
                        failures.push(failure);
                    }
                }
                StreamEvent::Ended(ended) => return (failures, ended.outcome),
                StreamEvent::InputTaken | StreamEvent::Heartbeat => {}
                other => panic!("{other:?}"),
            }
        }
        let room = client.input_room();
        if room > 0 {
            match source(room) {
                Some(bytes) => client.push_input(bytes),
                None => client.close_input(),
            }
        }
        while let Some(message) = client.next_input() {
            message.encode(&mut out);
        }
        if let Some(ack) = client.ack(false) {
            ChannelMessage::host(&ack).encode(&mut out);
        }
        let moved = async {
            tokio::select! {
                sent = write.write_buf(&mut out), if !out.is_empty() => {
                    if sent.is_err() {
                        // The agent may close before it has read the last ack.
                        out.clear();
                    }
                    true
                }
                got = read.read_buf(decoder.read_buffer()) => got.is_ok_and(|len| len > 0),
            }
        };
        let moved = timeout(SOON, moved).await.expect("progress");
        assert!(moved, "the agent closed without an outcome");
    }
}
