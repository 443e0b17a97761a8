//! A program as a stream of lines (`application/x-ndjson`): each an [`ExecEvent`], as it happens.
//!
//! The body is asked for its next line only when the last one was taken, and only then the agent is
//! told that what the line held has arrived: a caller that reads slowly slows the program down.

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

/// Whose program it is.
#[derive(Debug)]
pub(super) enum Source {
    /// An agent's that knows execs as objects.
    Object(Box<Driver>),
    /// One's that doesn't, under an id of our own.
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

    /// That it runs, and what is gone already: every byte is either told or told to be lost.
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

/// What surrounds a stream of lines.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) vm: VmName,
    pub(super) request_id: String,
    /// Kept until the stream's end: then the call is over.
    pub(super) note: Note,
    /// When the caller has had enough.
    pub(super) deadline: Option<Instant>,
}

/// A response that tells a program as it happens, with its outputs from these offsets on.
pub(super) fn response(source: Source, around: Around, [stdout, stderr]: [u64; 2]) -> Response {
    let told = source.beginning(stdout, stderr);
    let lines = Lines {
        source: Some(source),
        around,
        texts: Default::default(),
        told,
        heartbeats: HeartbeatFilter::default(),
    };
    body(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((line, lines))
    })
}

/// A response of lines that are made when they are asked for.
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
        // nginx would otherwise collect the stream before it passes it on.
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(lines)).into_response()
}

/// One line.
pub(super) fn line<T: Serialize>(event: &T) -> Bytes {
    let mut line = BytesMut::new().writer();
    // Names, numbers and texts; nothing in it can't be JSON, and memory doesn't refuse.
    let _ = serde_json::to_writer(&mut line, event);
    let mut line = line.into_inner();
    line.put_u8(b'\n');
    line.freeze()
}

/// The lines of one program.
#[derive(Debug)]
struct Lines {
    /// Let go at the end, and not when the caller has read everything.
    source: Option<Source>,
    around: Around,
    /// Of standard output and standard error.
    texts: [Text; 2],
    /// What comes before what happens next.
    told: VecDeque<ExecEvent>,
    heartbeats: HeartbeatFilter,
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.told.pop_front() {
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
                Ok(happened) => self.tell(happened),
                Err(error) => self.fail(error),
            }
        }
    }

    fn tell(&mut self, happened: Happened) {
        match happened {
            Happened::Output(stream, offset, bytes) => {
                let chunk = self.text(stream).push(offset, bytes);
                self.told.extend(chunk.map(|chunk| output(stream, chunk)));
            }
            Happened::Gap(stream, from, to) => {
                self.flush(stream);
                self.told.push_back(ExecEvent::Gap { stream: show::stream(stream), from, to });
            }
            Happened::Heartbeat => {
                self.told.extend(self.heartbeats.pass().then_some(ExecEvent::Heartbeat));
            }
            Happened::Told => self.end(ExecEvent::End),
            Happened::Ended(ended) => self.exit(ended),
        }
    }

    fn exit(&mut self, ended: Ended) {
        let told_by_agent = matches!(self.source, Some(Source::Object(_)));
        let usage = told_by_agent.then(|| show::usage(ended.usage));
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
        self.told.push_back(last);
        self.source = None;
    }

    fn flush(&mut self, stream: OutputStream) {
        let rest = self.text(stream).flush();
        self.told.extend(rest.map(|chunk| output(stream, chunk)));
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
