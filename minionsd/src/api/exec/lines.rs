//! A program as a stream of lines (`application/x-ndjson`). Each line is an [`ExecEvent`].
//!
//! The body produces the next line only when the previous one was taken, and only then acknowledges that line's output
//! to the agent. So a caller that reads slowly slows the program down.

use super::super::audit::Note;
use super::super::problem::ApiError;
use super::super::streamed::streamed;
use super::convert;
use super::text::TextDecoder;
use crate::agent::TransportError;
use crate::exec::heartbeat::HeartbeatFilter;
use crate::exec::{DriverEvent, ExecError, RunningExec};
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use minions_api::VmName;
use minions_api::exec::{Chunk, ExecEvent, NDJSON, StreamName};
use minions_proto::channel::{Ended, OutputStream};
use minions_proto::message::ExecAttached;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use tokio::time::{Instant, timeout_at};

/// Default weight, in thousandths: `q` values have at most three digits.
const FULL_WEIGHT: u16 = 1000;

/// Reports whether the caller names NDJSON and does not prefer JSON to it. A wildcard does not count: curl and browsers
/// send one without expecting a stream.
pub(super) fn prefers_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    let ranges = accepted.filter_map(|accept| accept.to_str().ok()).flat_map(|all| all.split(','));
    let (mut lines, mut json) = (0, 0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(FULL_WEIGHT);
        if essence.eq_ignore_ascii_case(NDJSON) {
            lines = lines.max(weight);
        } else if essence.eq_ignore_ascii_case("application/json") {
            json = json.max(weight);
        }
    }
    lines > 0 && lines >= json
}

/// Returns the value of a `q` parameter in thousandths; 0 if it is malformed.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim().parse().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    Some((value.clamp(0.0, 1.0) * f32::from(FULL_WEIGHT)).round() as u16)
}

/// Context of a stream of lines.
#[derive(Debug)]
pub(super) struct StreamContext {
    pub(super) vm: VmName,
    pub(super) request_id: String,
    /// Access to the call's audit entries. Held until the end of the stream, because the call ends when it is dropped.
    pub(super) note: Note,
    /// Deadline of the stream; `None` for none.
    pub(super) deadline: Option<Instant>,
}

/// Returns a response that streams a program's events, with its outputs from these offsets on.
pub(super) fn response(
    running: RunningExec,
    context: StreamContext,
    offsets: [u64; 2],
) -> Response {
    let pending = beginning(running.attached(), offsets);
    let lines = EventLines {
        running: Some(running),
        context,
        texts: Default::default(),
        pending,
        heartbeats: HeartbeatFilter::default(),
    };
    body(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((line, lines))
    })
}

/// Returns the first events: `started`, and a gap for output that the agent no longer has, so that every byte is either
/// sent or reported as lost.
fn beginning(attached: &ExecAttached, [stdout, stderr]: [u64; 2]) -> VecDeque<ExecEvent> {
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
    streamed(NDJSON, Body::from_stream(lines))
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
struct EventLines {
    /// Source of further events; dropped at the last event, even if the caller has not read all lines yet.
    running: Option<RunningExec>,
    context: StreamContext,
    /// Converters of standard output and standard error.
    texts: [TextDecoder; 2],
    /// Events to send before further ones are read.
    pending: VecDeque<ExecEvent>,
    heartbeats: HeartbeatFilter,
}

impl EventLines {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(line(&event));
            }
            let running = self.running.as_mut()?;
            let happened = match self.context.deadline {
                Some(deadline) => timeout_at(deadline, running.next())
                    .await
                    .unwrap_or(Err(TransportError::TimedOut { sent: true }.into())),
                None => running.next().await,
            };
            match happened {
                Ok(happened) => self.queue(happened),
                Err(error) => self.fail(error),
            }
        }
    }

    fn queue(&mut self, happened: DriverEvent) {
        match happened {
            DriverEvent::Output(stream, offset, bytes) => {
                let chunk = self.text(stream).push(offset, bytes);
                self.pending.extend(chunk.map(|chunk| output(stream, chunk)));
            }
            DriverEvent::Gap(stream, from, to) => {
                self.flush(stream);
                self.pending.push_back(ExecEvent::Gap { stream, from, to });
            }
            DriverEvent::Heartbeat => {
                self.pending.extend(self.heartbeats.pass().then_some(ExecEvent::Heartbeat));
            }
            // Only for a caller that pushes input.
            DriverEvent::InputTaken => {}
            DriverEvent::Told => self.end(ExecEvent::End),
            DriverEvent::Ended(ended) => self.exit(ended),
        }
    }

    fn exit(&mut self, ended: Ended) {
        let has_usage = self.running.as_ref().is_some_and(RunningExec::has_usage);
        let usage = has_usage.then_some(ended.usage);
        let exit_code = ended.outcome.exit_code();
        let outcome = ended.outcome;
        self.context.note.outcome(|| convert::in_words(&outcome));
        self.end(ExecEvent::Exit { exit_code, outcome, usage });
    }

    fn fail(&mut self, error: ExecError) {
        let error = ApiError::exec(&self.context.vm, error);
        self.context.note.outcome(|| error.code().to_string());
        let problem = error.into_problem(&self.context.request_id);
        self.end(ExecEvent::Error { problem });
    }

    fn end(&mut self, last: ExecEvent) {
        self.flush(OutputStream::Stdout);
        self.flush(OutputStream::Stderr);
        self.pending.push_back(last);
        self.running = None;
    }

    fn flush(&mut self, stream: OutputStream) {
        let rest = self.text(stream).flush();
        self.pending.extend(rest.map(|chunk| output(stream, chunk)));
    }

    fn text(&mut self, stream: OutputStream) -> &mut TextDecoder {
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn asks_for_lines(accept: &'static str) -> bool {
        let headers = [(ACCEPT, HeaderValue::from_static(accept))];
        prefers_lines(&headers.into_iter().collect())
    }

    #[test]
    fn lines_are_sent_to_clients_that_name_them_and_do_not_prefer_json() {
        for accept in [
            "application/x-ndjson",
            "APPLICATION/X-NDJSON; q=0.5",
            "application/json, application/x-ndjson",
            "application/json;q=0.4, application/x-ndjson;charset=utf-8;q=0.5",
            "text/plain;q=0.9, application/x-ndjson;q=0.001",
        ] {
            assert!(asks_for_lines(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/json, application/x-ndjson;q=0",
            "application/x-ndjson; Q=0.0",
            "application/x-ndjson;q=nonsense",
            "application/json, application/x-ndjson;q=0.9",
        ] {
            assert!(!asks_for_lines(accept), "{accept}");
        }
    }
}
