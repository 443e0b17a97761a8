//! One line for every operate call: who, what, which VM, how it ended. Never an argument, a file's
//! content or a token.

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use minions_api::service::Identity;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::time::Instant;
use tracing::Span;

/// The tracing target of audit lines, which the log's filter and the audit file go by.
pub const TARGET: &str = "audit";

/// What a handler adds to its line. As long as anybody keeps one, the call isn't over: a stream's
/// line comes when the stream ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Note(Option<Arc<Line>>);

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
        let Some(line) = &self.0 else { return };
        let mut digest = Sha256::new();
        for arg in args {
            digest.update(u64::try_from(arg.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(arg);
        }
        let arguments = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        // A handler says it once; a second time would change nothing.
        let _ = line.program.set(Program { command: command.to_owned(), arguments });
    }

    /// The call is about the exec of this id.
    pub(super) fn exec(&self, id: &str) {
        if let Some(line) = &self.0 {
            let _ = line.exec_id.set(id.to_owned());
        }
    }

    /// What became of it.
    pub(super) fn outcome(&self, outcome: impl FnOnce() -> String) {
        if let Some(line) = &self.0 {
            let _ = line.outcome.set(outcome());
        }
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
pub(super) struct Call(Arc<Line>);

/// What the line will say.
#[derive(Debug)]
struct Line {
    /// The request's: its id and trace id belong to the line.
    span: Span,
    action: String,
    /// As it was sent: still percent-encoded, so plain ASCII.
    vm: Option<String>,
    program: OnceLock<Program>,
    exec_id: OnceLock<String>,
    outcome: OnceLock<String>,
    started: Instant,
    caller: Mutex<Caller>,
}

#[derive(Debug)]
struct Caller {
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
        let identity = Identity::Unknown;
        let caller = Caller { identity, with_token: false, allowed: false, status: None };
        Self(Arc::new(Line {
            span: Span::current(),
            action: format!("{} {route}", request.method()),
            vm: vm_in(request.uri().path()).map(str::to_owned),
            program: OnceLock::new(),
            exec_id: OnceLock::new(),
            outcome: OnceLock::new(),
            started: Instant::now(),
            caller: Mutex::new(caller),
        }))
    }

    /// What its handler can add to.
    pub(super) fn note(&self) -> Note {
        Note(Some(Arc::clone(&self.0)))
    }

    /// Who is at the other end, whatever they have shown.
    pub(super) fn by(&mut self, identity: Identity) {
        self.0.caller().identity = identity;
    }

    /// They have the bearer token.
    pub(super) fn with_token(&mut self) {
        self.0.caller().with_token = true;
    }

    /// From here on something may happen in the VM.
    pub(super) fn allowed(&mut self) {
        self.0.caller().allowed = true;
    }

    /// It has an answer; its body may still be on its way.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.0.caller().status = Some(status.as_u16());
    }
}

impl Line {
    /// Held for an assignment or a look.
    fn caller(&self) -> MutexGuard<'_, Caller> {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let program = self.program.get();
        let caller = self.caller();
        let (kind, uid) = match caller.identity {
            Identity::User { uid } => ("user", Some(uid)),
            Identity::Token | Identity::Unknown => ("unknown", None),
        };
        tracing::info!(
            target: TARGET,
            identity = if caller.with_token { "token" } else { kind },
            uid,
            action = self.action,
            vm = self.vm,
            // Quoted and escaped: whoever calls chooses it.
            command = program.map(|program| tracing::field::debug(&program.command)),
            arguments_sha256 = program.map(|program| program.arguments.as_str()),
            exec_id = self.exec_id.get(),
            outcome = self.outcome.get(),
            allowed = caller.allowed,
            status = caller.status,
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "operate"
        );
    }
}

/// The VM's name in a path below `/vms/`.
fn vm_in(path: &str) -> Option<&str> {
    path.strip_prefix("/vms/")?.split('/').next()
}

/// Whoever lets go last writes the line.
impl Drop for Line {
    fn drop(&mut self) {
        self.span.in_scope(|| self.write());
    }
}
