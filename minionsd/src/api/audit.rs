//! One line for every operate call: who, what, which VM, how it ended. Never an argument, a file's
//! content or a token.

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use minions_api::service::Identity;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;

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

/// A call under way. It leaves its line when it is over, however it ends: also if its caller hangs up
/// and its future is dropped, when what it asked for may have been done already.
#[derive(Debug)]
pub(super) struct Call {
    action: String,
    /// As it was sent: still percent-encoded, so plain ASCII.
    vm: Option<String>,
    note: Note,
    started: Instant,
    identity: Identity,
    with_token: bool,
    allowed: bool,
    /// None until there is an answer.
    status: Option<u16>,
}

impl Call {
    /// By nobody yet, and not allowed.
    pub(super) fn begin(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        Self {
            action: format!("{} {route}", request.method()),
            vm: vm_in(request.uri().path()).map(str::to_owned),
            note: Note::default(),
            started: Instant::now(),
            identity: Identity::Unknown,
            with_token: false,
            allowed: false,
            status: None,
        }
    }

    /// What its handler can add to.
    pub(super) fn note(&self) -> Note {
        self.note.clone()
    }

    /// Who is at the other end, whatever they have shown.
    pub(super) fn by(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// They have the bearer token.
    pub(super) fn with_token(&mut self) {
        self.with_token = true;
    }

    /// From here on something may happen in the VM.
    pub(super) fn allowed(&mut self) {
        self.allowed = true;
    }

    /// It has come to its end.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status.as_u16());
    }
}

/// The VM's name in a path below `/vms/`.
fn vm_in(path: &str) -> Option<&str> {
    path.strip_prefix("/vms/")?.split('/').next()
}

/// Writes the line. The request's id and trace id come from the span around it.
impl Drop for Call {
    fn drop(&mut self) {
        let program = self.note.0.get();
        let (kind, uid) = match self.identity {
            Identity::User { uid } => ("user", Some(uid)),
            Identity::Token | Identity::Unknown => ("unknown", None),
        };
        tracing::info!(
            target: TARGET,
            identity = if self.with_token { "token" } else { kind },
            uid,
            action = self.action,
            vm = self.vm,
            // Quoted and escaped: whoever calls chooses it.
            command = program.map(|program| tracing::field::debug(&program.command)),
            arguments_sha256 = program.map(|program| program.arguments.as_str()),
            allowed = self.allowed,
            status = self.status,
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "operate"
        );
    }
}
