//! A program as a stream of lines (`application/x-ndjson`). Each line is an [`ExecEvent`].
//!
//! The body produces the next line only when the previous one was taken, and only then acknowledges that line's output
//! to the agent. So a caller that reads slowly slows the program down.

use super::super::X_ACCEL_BUFFERING;
use super::super::audit::Note;
use super::super::problem::ApiError;
use super::show;
use super::text::Text;
use crate::agent::CallError;
use crate::exec::heartbeat::HeartbeatFilter;
use crate::exec::plain::Plain;
use crate::exec::{Driver, Happened};
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use minions_api::VmName;
use minions_api::exec::{Chunk, ExecEvent, NDJSON, StreamName};
use minions_proto::channel::{Ended, OutputStream};
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use tokio::time::{Instant, timeout_at};

/// Source of a program's events.
#[derive(Debug)]
pub(super) enum Source {
    /// A program of an agent with the feature `exec2`.
    Object(Box<Driver>),
    /// A program of an agent without it, with an id that only the daemon knows.
    Plain(Plain, String),
}

impl Source {
    async fn next(&mut self) -> Result<Happened, CallError> {
        match self {
            Self::Object(driver) => {
                let turns = driver.turns();
                turns.take(driver.next()).await
            }
            Self::Plain(plain, _) => plain.next().await,
        }
    }

    /// Returns the first events: `started`, and a gap for output that the agent no longer has, so that every byte is
    /// either sent or reported as lost.
    fn beginning(&self, stdout: u64, stderr: u64) -> VecDeque<ExecEvent> {
        let driver = match self {
            Self::Object(driver) => driver,
            Self::Plain(_, id) => {
                return [ExecEvent::Started { id: id.clone(), pid: 0, created: true }].into();
            }
        };
        let attached = driver.attached();
        let started = ExecEvent::Started {
            id: attached.id.to_string(),
            pid: attached.pid,
            created: attached.created,
        };
        let gap = |stream, from, to| (from < to).then_some(ExecEvent::Gap { stream, from, to });
        let gone = [
            gap(StreamName::Stdout, stdout, attached.stdout),
            gap(StreamName::Stderr, stderr, attached.stderr),
        ];
        std::iter::once(started).chain(gone.into_iter().flatten()).collect()
    }
}

/// Context of a stream of lines.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) vm: VmName,
    pub(super) request_id: String,
    /// Access to the call's audit entries. Held until the end of the stream, because the call ends when it is dropped.
    pub(super) note: Note,
    /// Deadline of the stream; `None` for none.
    pub(super) deadline: Option<Instant>,
}

/// Returns a response that streams a program's events, with its outputs from these offsets on.
pub(super) fn response(source: Source, around: Around, [stdout, stderr]: [u64; 2]) -> Response {
    let pending = source.beginning(stdout, stderr);
    let lines = Lines {
        source: Some(source),
        around,
        texts: Default::default(),
        pending,
        heartbeats: HeartbeatFilter::default(),
    };
    body(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((line, lines))
    })
}

/// Returns a response whose lines are produced on demand.
pub(super) fn body<S, N, F>(state: S, next: N) -> Response
where
    S: Send + 'static,
    N: Fn(S) -> F + Send + 'static,
    F: Future<Output = Option<(Bytes, S)>> + Send + 'static,
{
    let lines = futures_util::stream::unfold(state, move |state| {
        let next = next(state);
        async move { next.await.map(|(line, state)| (Ok::<_, Infallible>(line), state)) }
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(NDJSON)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Otherwise nginx buffers the stream.
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(lines)).into_response()
}

/// Encodes an event as one line of JSON.
pub(super) fn line<T: Serialize>(event: &T) -> Bytes {
    let mut writer = BytesMut::new().writer();
    // Cannot fail: events are always valid JSON, and writing to memory does not fail.
    let _ = serde_json::to_writer(&mut writer, event);
    let mut line = writer.into_inner();
    line.put_u8(b'\n');
    line.freeze()
}

/// The lines of one program.
#[derive(Debug)]
struct Lines {
    /// Source of further events; dropped at the last event, even if the caller has not read all lines yet.
    source: Option<Source>,
    around: Around,
    /// Text converters of standard output and standard error.
    texts: [Text; 2],
    /// Events to send before the source is read again.
    pending: VecDeque<ExecEvent>,
    heartbeats: HeartbeatFilter,
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(line(&event));
            }
            let source = self.source.as_mut()?;
            let happened = match self.around.deadline {
                Some(deadline) => timeout_at(deadline, source.next())
                    .await
                    .unwrap_or(Err(CallError::TimedOut { sent: true })),
                None => source.next().await,
            };
            match happened {
                Ok(happened) => self.queue(happened),
                Err(error) => self.fail(error),
            }
        }
    }

    fn queue(&mut self, happened: Happened) {
        match happened {
            Happened::Output(stream, offset, bytes) => {
                let chunk = self.text(stream).push(offset, bytes);
                self.pending.extend(chunk.map(|chunk| output(stream, chunk)));
            }
            Happened::Gap(stream, from, to) => {
                self.flush(stream);
                self.pending.push_back(ExecEvent::Gap { stream: show::stream(stream), from, to });
            }
            Happened::Heartbeat => {
                self.pending.extend(self.heartbeats.pass().then_some(ExecEvent::Heartbeat));
            }
            Happened::Told => self.end(ExecEvent::End),
            Happened::Ended(ended) => self.exit(ended),
        }
    }

    fn exit(&mut self, ended: Ended) {
        let has_usage = matches!(self.source, Some(Source::Object(_)));
        let usage = has_usage.then(|| show::usage(ended.usage));
        let exit_code = ended.outcome.exit_code();
        let outcome = show::outcome(ended.outcome);
        self.around.note.outcome(|| show::in_words(&outcome));
        self.end(ExecEvent::Exit { exit_code, outcome, usage });
    }

    fn fail(&mut self, error: CallError) {
        let error = ApiError::exec(&self.around.vm, error);
        self.around.note.outcome(|| error.code().to_string());
        let problem = error.into_problem(&self.around.request_id);
        self.end(ExecEvent::Error { problem });
    }

    fn end(&mut self, last: ExecEvent) {
        self.flush(OutputStream::Stdout);
        self.flush(OutputStream::Stderr);
        self.pending.push_back(last);
        self.source = None;
    }

    fn flush(&mut self, stream: OutputStream) {
        let rest = self.text(stream).flush();
        self.pending.extend(rest.map(|chunk| output(stream, chunk)));
    }

    fn text(&mut self, stream: OutputStream) -> &mut Text {
        let [stdout, stderr] = &mut self.texts;
        match stream {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        }
    }
}

fn output(stream: OutputStream, chunk: Chunk) -> ExecEvent {
    match stream {
        OutputStream::Stdout => ExecEvent::Stdout(chunk),
        OutputStream::Stderr => ExecEvent::Stderr(chunk),
    }
}
