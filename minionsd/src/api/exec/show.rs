//! Conversion of programs from wire types to REST types.

use crate::budget::Share;
use crate::exec::Collected;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minions_api::exec as api;
use minions_proto::channel::OutputStream;
use minions_proto::message as wire;

/// Converts the collected output of a program; also returns its budget share.
pub(super) fn collected(id: &str, collected: Collected) -> (api::ExecResult, Share) {
    let Collected { stdout, stderr, ended, share } = collected;
    let (stdout, stderr) = (stdout.show(), stderr.show());
    let result = api::ExecResult {
        status: "ok".into(),
        id: Some(id.to_owned()),
        exit_code: ended.outcome.exit_code(),
        stdout: stdout.text,
        stderr: stderr.text,
        stdout_base64: stdout.bytes.map(|bytes| STANDARD.encode(bytes)),
        stderr_base64: stderr.bytes.map(|bytes| STANDARD.encode(bytes)),
        stdout_bytes: Some(stdout.total),
        stderr_bytes: Some(stderr.total),
        stdout_truncated: Some(stdout.truncated),
        stderr_truncated: Some(stderr.truncated),
        outcome: Some(outcome(ended.outcome)),
        duration_ms: Some(ended.usage.wall_ms),
        usage: Some(usage(ended.usage)),
    };
    (result, share)
}

/// Converts the reply of an agent without the feature `exec2`.
pub(super) fn plain(reply: wire::ExecReply) -> api::ExecResult {
    api::ExecResult {
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
        outcome: reply.outcome.map(outcome),
        duration_ms: reply.duration_ms,
        usage: None,
    }
}

pub(super) fn outcome(outcome: wire::Outcome) -> api::Outcome {
    match outcome {
        wire::Outcome::Exited { code } => api::Outcome::Exited { code },
        wire::Outcome::Signaled { signal, core, reason } => {
            api::Outcome::Signaled { signal, core, reason: reason.map(signal_reason) }
        }
        wire::Outcome::TimedOut => api::Outcome::TimedOut,
        wire::Outcome::FailedToStart { kind, errno } => {
            api::Outcome::FailedToStart { kind: start_failure(kind), errno }
        }
        wire::Outcome::Lost { reason } => api::Outcome::Lost { reason },
    }
}

fn signal_reason(reason: wire::SignalReason) -> api::SignalReason {
    match reason {
        wire::SignalReason::Oom => api::SignalReason::Oom,
        wire::SignalReason::Other => api::SignalReason::Other,
    }
}

fn start_failure(kind: wire::StartFailure) -> api::StartFailure {
    match kind {
        wire::StartFailure::NotFound => api::StartFailure::NotFound,
        wire::StartFailure::NotExecutable => api::StartFailure::NotExecutable,
        wire::StartFailure::UnknownUser => api::StartFailure::UnknownUser,
        wire::StartFailure::Cwd => api::StartFailure::Cwd,
        wire::StartFailure::ArgumentListTooLong => api::StartFailure::ArgumentListTooLong,
        wire::StartFailure::Other => api::StartFailure::Other,
    }
}

pub(super) fn usage(usage: wire::Usage) -> api::Usage {
    let wire::Usage { wall_ms, user_ms, system_ms, max_rss_bytes } = usage;
    api::Usage { wall_ms, user_ms, system_ms, max_rss_bytes }
}

pub(super) fn stream(stream: OutputStream) -> api::StreamName {
    match stream {
        OutputStream::Stdout => api::StreamName::Stdout,
        OutputStream::Stderr => api::StreamName::Stderr,
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
        on_disconnect: match info.on_disconnect {
            wire::OnDisconnect::Kill => api::OnDisconnect::Kill,
            wire::OnDisconnect::Detach => api::OnDisconnect::Detach,
        },
        stdout_bytes: info.stdout_bytes,
        stdout_kept_from: info.stdout_kept_from,
        stderr_bytes: info.stderr_bytes,
        stderr_kept_from: info.stderr_kept_from,
        stdin_bytes: info.stdin_bytes,
        end_requested: info.end_requested,
        exit_code: info.outcome.as_ref().map(wire::Outcome::exit_code),
        outcome: info.outcome.map(outcome),
        usage: info.usage.map(usage),
        left_running: info.left_running,
    }
}

pub(super) fn attached(attached: &wire::ExecAttached) -> api::Attached {
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
    } = attached;
    api::Attached {
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
