//! The entry of the audit log, as JSON and as a log event.

use crate::logging::AUDIT_TARGET;
use minions_api::Timestamp;
use minions_api::service::Identity;
use serde::Serialize;

/// Part of a call that an entry describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Admission; the call continues after this entry is written.
    Begin,
    /// End of the call.
    End,
    /// Refused calls of one caller, combined in one entry.
    Refused,
}

/// The caller, as entries name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct By {
    /// `user`, `token` or `unknown`.
    pub(super) identity: &'static str,
    /// Uid of the connection's peer, also for callers with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<u32>,
}

impl By {
    /// Describes a caller by its connection's peer, and whether it has the token.
    pub(crate) fn new(peer: &Identity, has_token: bool) -> Self {
        let (identity, uid) = match peer {
            Identity::User { uid } => ("user", Some(*uid)),
            Identity::Token | Identity::Unknown => ("unknown", None),
        };
        Self { identity: if has_token { "token" } else { identity }, uid }
    }

    /// Stands for all callers beyond those that are counted individually.
    pub(super) const OTHERS: Self = Self { identity: "others", uid: None };
}

/// A program, identified without revealing its arguments.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Program {
    /// Command, quoted and escaped because the caller chooses it.
    pub(crate) command: String,
    /// SHA-256 over the arguments, each preceded by its length; equal argument lists have equal digests.
    pub(crate) arguments_sha256: String,
}

/// Number and time span of the calls that one entry stands for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Count {
    pub(crate) count: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// An entry of the audit log.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    pub(crate) stage: Stage,
    #[serde(flatten)]
    pub(crate) by: By,
    /// Method and route template.
    pub(crate) action: String,
    /// VM's name as in the request's path: still percent-encoded, so always ASCII.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vm: Option<String>,
    #[serde(flatten)]
    pub(crate) program: Option<Program>,
    /// Path of a file, or target of a forward, quoted and escaped because the caller chooses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exec_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<String>,
    pub(crate) allowed: bool,
    /// HTTP status; `None` before the reply, and for callers that did not wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<u64>,
    #[serde(flatten)]
    /// Number of calls; set for [`Stage::Refused`] only.
    pub(crate) count: Option<Count>,
    pub(crate) request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
}

/// An entry as a line of the file, in the format of tracing's JSON log, so that one parser can read both.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: Timestamp,
    level: &'static str,
    fields: Fields<'a>,
    target: &'static str,
    span: Span<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: &'static str,
    #[serde(flatten)]
    entry: &'a Entry,
}

#[derive(Serialize)]
struct Span<'a> {
    name: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

/// A line of the file that reports missing entries before it.
#[derive(Serialize)]
struct Lost {
    timestamp: Timestamp,
    level: &'static str,
    fields: LostFields,
    target: &'static str,
}

#[derive(Serialize)]
struct LostFields {
    message: &'static str,
    count: u64,
}

impl Entry {
    fn message(&self) -> &'static str {
        match self.stage {
            Stage::Begin | Stage::End => "operate",
            Stage::Refused => "refused",
        }
    }

    /// Returns the entry as one line of JSON, including the line break.
    pub(super) fn line(&self) -> Vec<u8> {
        line_of(&Line {
            timestamp: Timestamp::now(),
            level: "INFO",
            fields: Fields { message: self.message(), entry: self },
            target: AUDIT_TARGET,
            span: Span {
                name: "request",
                request_id: &self.request_id,
                trace_id: self.trace_id.as_deref(),
            },
        })
    }

    /// Writes the entry to the log.
    pub(super) fn log(&self) {
        let program = self.program.as_ref();
        let count = self.count.as_ref();
        tracing::info!(
            target: AUDIT_TARGET,
            request_id = self.request_id,
            trace_id = self.trace_id,
            stage = match self.stage {
                Stage::Begin => "begin",
                Stage::End => "end",
                Stage::Refused => "refused",
            },
            identity = self.by.identity,
            uid = self.by.uid,
            action = self.action,
            vm = self.vm,
            command = program.map(|program| program.command.as_str()),
            arguments_sha256 = program.map(|program| program.arguments_sha256.as_str()),
            exec_id = self.exec_id,
            outcome = self.outcome,
            allowed = self.allowed,
            status = self.status,
            duration_ms = self.duration_ms,
            count = count.map(|count| count.count),
            first = count.map(|count| tracing::field::display(&count.first)),
            last = count.map(|count| tracing::field::display(&count.last)),
            "{}",
            self.message()
        );
    }
}

/// Returns the line that replaces `count` lost entries.
pub(super) fn lost(count: u64) -> Vec<u8> {
    line_of(&Lost {
        timestamp: Timestamp::now(),
        level: "WARN",
        fields: LostFields { message: "audit entries were lost", count },
        target: AUDIT_TARGET,
    })
}

fn line_of(line: &impl Serialize) -> Vec<u8> {
    // Only strings and numbers: serialization cannot fail.
    let mut line = serde_json::to_vec(line).unwrap_or_default();
    line.push(b'\n');
    line
}
