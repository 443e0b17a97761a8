//! One line for every operate call: who, what, which VM, how it ended. Never an argument, a file's
//! content or a token.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use minions_api::service::Identity;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The tracing target of audit lines, which the log's filter and the audit file go by.
pub const TARGET: &str = "audit";

/// What a handler adds to its line.
#[derive(Debug, Clone, Default)]
pub(super) struct Note(Arc<OnceLock<Program>>);

/// A program, recognisable without being readable.
#[derive(Debug)]
struct Program {
    command: String,
    /// SHA-256 over the arguments, each behind its length: the same call gives the same digest.
    arguments: String,
}

impl Note {
    /// The call runs this program.
    pub(super) fn program(&self, command: &str, args: &[String]) {
        let mut digest = Sha256::new();
        for arg in args {
            digest.update(u64::try_from(arg.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(arg);
        }
        let arguments = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        // A handler says it once; a second time would change nothing.
        let _ = self.0.set(Program { command: command.to_owned(), arguments });
    }
}

/// Outside of an operate route there is nowhere to note anything, and nothing is lost.
impl<S: Sync> FromRequestParts<S> for Note {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// A line.
pub(super) struct Entry<'a> {
    pub(super) identity: &'a Identity,
    pub(super) action: fmt::Arguments<'a>,
    pub(super) vm: Option<&'a str>,
    pub(super) note: &'a Note,
    pub(super) status: u16,
    pub(super) duration: Duration,
}

/// The VM's name in a path below `/vms/`, as it was sent: still percent-encoded, so plain ASCII.
pub(super) fn vm_in(path: &str) -> Option<&str> {
    path.strip_prefix("/vms/")?.split('/').next()
}

/// Writes it. The request's id and trace id come from the span around it.
pub(super) fn write(entry: &Entry<'_>) {
    let program = entry.note.0.get();
    let (kind, uid) = match entry.identity {
        Identity::User { uid } => ("user", Some(*uid)),
        Identity::Token => ("token", None),
        Identity::Unknown => ("unknown", None),
    };
    tracing::info!(
        target: TARGET,
        identity = kind,
        uid,
        action = %entry.action,
        vm = entry.vm,
        // Quoted and escaped: whoever calls chooses it.
        command = program.map(|program| tracing::field::debug(&program.command)),
        arguments_sha256 = program.map(|program| program.arguments.as_str()),
        status = entry.status,
        duration_ms = u64::try_from(entry.duration.as_millis()).unwrap_or(u64::MAX),
        "operate"
    );
}
