//! Conversion of replies about programs from wire types to REST types, and the response with a collected result.

use crate::budget::BudgetShare;
use crate::exec::{CollectedOutput, ExecError};
use axum::Json;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use minions_api::exec as api;
use minions_proto::message as wire;
use std::convert::Infallible;

/// Number of bytes that are passed to the connection at a time.
const PIECE: usize = 64 * 1024;

/// Result of a program that ran.
#[derive(Debug)]
pub(super) struct FinishedExec {
    pub(super) result: api::ExecResult,
    /// Budget share of the output.
    share: BudgetShare,
}

impl FinishedExec {
    /// Converts the output and end of a program of an agent with the feature `exec2`.
    ///
    /// # Errors
    ///
    /// [`ExecError::Lost`]: the agent lost the program.
    pub(super) fn object(id: &wire::ExecId, collected: CollectedOutput) -> Result<Self, ExecError> {
        let CollectedOutput { stdout, stderr, ended, share } = collected;
        if let wire::Outcome::Lost { reason } = ended.outcome {
            return Err(ExecError::Lost { reason });
        }
        let (stdout, stderr) = (stdout.show(), stderr.show());
        let result = api::ExecResult {
            status: "ok".into(),
            id: Some(id.to_string()),
            exit_code: ended.outcome.exit_code(),
            stdout: stdout.text,
            stderr: stderr.text,
            stdout_base64: stdout.bytes.map(|bytes| STANDARD.encode(bytes)),
            stderr_base64: stderr.bytes.map(|bytes| STANDARD.encode(bytes)),
            stdout_bytes: Some(stdout.total),
            stderr_bytes: Some(stderr.total),
            stdout_truncated: Some(stdout.truncated),
            stderr_truncated: Some(stderr.truncated),
            outcome: Some(ended.outcome),
            duration_ms: Some(ended.usage.wall_ms),
            usage: Some(ended.usage),
        };
        Ok(Self { result, share })
    }

    /// Converts the reply of an agent without that feature.
    pub(super) fn plain(reply: wire::ExecReply, share: BudgetShare) -> Self {
        let result = api::ExecResult {
            status: "ok".into(),
            id: None,
            exit_code: reply.exit_code,
            stdout: reply.stdout,
            stderr: reply.stderr,
            stdout_base64: None,
            stderr_base64: None,
            stdout_bytes: reply.stdout_bytes,
            stderr_bytes: reply.stderr_bytes,
            stdout_truncated: reply.stdout_truncated,
            stderr_truncated: reply.stderr_truncated,
            outcome: reply.outcome,
            duration_ms: reply.duration_ms,
            usage: None,
        };
        Self { result, share }
    }

    /// Reports whether the program exited with status 0.
    pub(super) fn is_success(&self) -> bool {
        self.result.exit_code == 0
    }

    /// Returns the program's end in a few words, for the audit log.
    pub(super) fn in_words(&self) -> String {
        let plain = api::Outcome::Exited { code: self.result.exit_code };
        in_words(self.result.outcome.as_ref().unwrap_or(&plain))
    }
}

/// Sends the result. The output counts against the memory budget until the caller has received it.
impl IntoResponse for FinishedExec {
    fn into_response(self) -> Response {
        let Self { result, share } = self;
        if share.is_empty() {
            return Json(result).into_response();
        }
        let json = Bytes::from(serde_json::to_vec(&result).unwrap_or_default());
        drop(result);
        let length = json.len();
        let pieces = futures_util::stream::unfold((json, share), |(mut json, share)| async move {
            let piece = json.split_to(json.len().min(PIECE));
            (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (json, share)))
        });
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CONTENT_LENGTH, length.into()),
        ];
        (headers, Body::from_stream(pieces)).into_response()
    }
}

pub(super) fn info(info: wire::ExecInfo) -> api::ExecInfo {
    api::ExecInfo {
        id: info.id.to_string(),
        state: match &info.outcome {
            None => api::ExecState::Running,
            Some(wire::Outcome::Lost { .. }) => api::ExecState::Lost,
            Some(_) => api::ExecState::Ended,
        },
        command: info.command,
        args: info.args,
        user: info.user,
        tty: info.tty,
        pid: info.pid,
        age_ms: info.age_ms,
        attached: info.attached,
        on_disconnect: info.on_disconnect,
        stdout_bytes: info.stdout_bytes,
        stdout_kept_from: info.stdout_kept_from,
        stderr_bytes: info.stderr_bytes,
        stderr_kept_from: info.stderr_kept_from,
        stdin_bytes: info.stdin_bytes,
        end_requested: info.end_requested,
        exit_code: info.outcome.as_ref().map(wire::Outcome::exit_code),
        outcome: info.outcome,
        usage: info.usage,
        inherited: info.inherited,
        started_as: info.started_as.map(|id| id.to_string()),
        generation: info.generation,
        left_running: info.left_running,
    }
}

pub(super) fn attached(attached: &wire::ExecAttached) -> api::AttachReply {
    let wire::ExecAttached {
        id,
        created,
        pid,
        stdout,
        stderr,
        stdin,
        stdin_acked,
        stdin_window,
        stdin_closed,
        reattach_grace_ms: _,
    } = attached;
    api::AttachReply {
        status: "ok".into(),
        id: id.to_string(),
        created: *created,
        pid: *pid,
        stdout: *stdout,
        stderr: *stderr,
        stdin: *stdin,
        stdin_acked: *stdin_acked,
        stdin_window: *stdin_window,
        stdin_closed: *stdin_closed,
        reattach_grace_ms: u64::try_from(attached.reattach_grace().as_millis()).unwrap_or(u64::MAX),
    }
}

/// Describes an end in a few words, for the audit log. Only its numbers can be chosen by the guest.
pub(super) fn in_words(outcome: &api::Outcome) -> String {
    match outcome {
        api::Outcome::Exited { code } => format!("exited {code}"),
        api::Outcome::Signaled { signal, reason: Some(api::SignalReason::Oom), .. } => {
            format!("signaled {signal} oom")
        }
        api::Outcome::Signaled { signal, .. } => format!("signaled {signal}"),
        api::Outcome::TimedOut => "timed_out".into(),
        api::Outcome::FailedToStart { .. } => "failed_to_start".into(),
        api::Outcome::Lost { .. } => "lost".into(),
    }
}
