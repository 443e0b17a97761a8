//! The audit entries of one operate call. They never contain an argument, a file's content or a token.

use super::problem::ApiError;
use super::request_id::{self, RequestId};
use crate::audit::{AuditCaller, AuditEntry, AuditLog, AuditedProgram, EntryStage, Refusal};
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use minions_api::ErrorCode;
use minions_api::service::Identity;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Refusals of one caller within a second that are answered without delay: more than a person or a misconfigured
/// client causes.
const REFUSALS_WITHOUT_DELAY: u64 = 50;

/// Delay of the replies to further refused calls.
const REFUSAL_DELAY: Duration = Duration::from_millis(50);

/// Time at which the first audit entry of a call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstEntryTime {
    /// Written on admission of the call.
    AtAdmission,
    /// Written when the handler knows the program ([`AuditNote::program`]), the exec ([`AuditNote::attachment`]), the file or the
    /// target ([`AuditNote::subject`]), before a guest is contacted.
    WithProgram,
}

/// A handler's access to the entries of its call. While a clone exists, the call is not over: a stream's
/// last entry is written when the stream ends.
#[derive(Debug, Clone, Default)]
pub(super) struct AuditNote(Option<Arc<CallState>>);

impl AuditNote {
    /// Names the program that the call runs, and writes the call's first entry.
    ///
    /// # Errors
    ///
    /// `audit_unavailable`: the program must not run.
    pub(super) async fn program(&self, command: &str, args: &[String]) -> Result<(), ApiError> {
        let Some(state) = &self.0 else { return Ok(()) };
        // Handlers call this once; a second call would not change the program.
        let _ = state.program.set(AuditedProgram {
            command: format!("{command:?}"),
            arguments_sha256: digest(args),
        });
        state.begin().await
    }

    /// Names the file or the target that the call is about, and writes the call's first entry.
    ///
    /// # Errors
    ///
    /// `audit_unavailable`: no guest must be contacted.
    pub(super) async fn subject(&self, subject: &str) -> Result<(), ApiError> {
        let Some(state) = &self.0 else { return Ok(()) };
        let _ = state.subject.set(format!("{subject:?}"));
        state.begin().await
    }

    /// Names the exec that the call attaches to, and writes the call's first entry.
    ///
    /// # Errors
    ///
    /// `audit_unavailable`: the call must not attach.
    pub(super) async fn attachment(&self, id: &str) -> Result<(), ApiError> {
        self.exec(id);
        match &self.0 {
            Some(state) => state.begin().await,
            None => Ok(()),
        }
    }

    /// Names the exec that the call is about.
    pub(super) fn exec(&self, id: &str) {
        if let Some(state) = &self.0 {
            let _ = state.exec_id.set(id.to_owned());
        }
    }

    /// Sets the call's outcome, in a few words.
    pub(super) fn outcome(&self, outcome: impl FnOnce() -> String) {
        if let Some(state) = &self.0 {
            let _ = state.outcome.set(outcome());
        }
    }
}

/// Extracts the note of the call. On routes with the scope *read*, which have no entries, it ignores everything.
impl<S: Sync> FromRequestParts<S> for AuditNote {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// An operate call in progress. Its last entry is written however it ends, even if the caller disconnects and the
/// future is dropped: the guest may have executed the operation.
#[derive(Debug)]
pub(super) struct AuditedCall {
    state: Arc<CallState>,
    begins: FirstEntryTime,
}

#[derive(Debug)]
struct CallState {
    audit: AuditLog,
    request_id: String,
    trace_id: Option<String>,
    action: String,
    vm: Option<String>,
    program: OnceLock<AuditedProgram>,
    subject: OnceLock<String>,
    exec_id: OnceLock<String>,
    outcome: OnceLock<String>,
    started: Instant,
    progress: Mutex<CallProgress>,
}

#[derive(Debug)]
struct CallProgress {
    peer: Identity,
    has_token: bool,
    phase: CallPhase,
    /// Status of the reply; `None` until there is one.
    status: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallPhase {
    /// The caller is not checked yet.
    Unchecked,
    /// The caller is allowed to make the call; the last entry is not written yet.
    Admitted,
    /// All entries are written, or the refusal is recorded.
    Over,
}

impl AuditedCall {
    /// Creates the call for a request whose caller is not checked yet.
    pub(super) fn of(request: &Request, audit: AuditLog, begins: FirstEntryTime) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let request_id = request.extensions().get::<RequestId>();
        let progress = CallProgress {
            peer: Identity::Unknown,
            has_token: false,
            phase: CallPhase::Unchecked,
            status: None,
        };
        let state = CallState {
            audit,
            request_id: request_id.map_or_else(String::new, |id| id.as_str().to_owned()),
            trace_id: request_id::trace_id(request.headers()).map(str::to_owned),
            action: format!("{} {route}", request.method()),
            vm: vm_in(request.uri().path()).map(str::to_owned),
            program: OnceLock::new(),
            subject: OnceLock::new(),
            exec_id: OnceLock::new(),
            outcome: OnceLock::new(),
            started: Instant::now(),
            progress: Mutex::new(progress),
        };
        Self { state: Arc::new(state), begins }
    }

    /// Returns the handler's access to the entries.
    pub(super) fn note(&self) -> AuditNote {
        AuditNote(Some(Arc::clone(&self.state)))
    }

    /// Sets the identity of the connection's peer, regardless of the request's credential.
    pub(super) fn identify(&self, peer: Identity) {
        self.state.progress().peer = peer;
    }

    /// Records that the request has the bearer token.
    pub(super) fn has_token(&self) {
        self.state.progress().has_token = true;
    }

    /// Admits the call, and writes its first entry if it [begins](Begins) now.
    ///
    /// # Errors
    ///
    /// `audit_unavailable`: nothing must reach the guest.
    pub(super) async fn admitted(&self) -> Result<(), ApiError> {
        if self.begins == FirstEntryTime::AtAdmission {
            self.state.begin().await?;
        }
        self.state.progress().phase = CallPhase::Admitted;
        Ok(())
    }

    /// Sets the status of the reply. Writes the last entry, unless the reply is a stream that is still open.
    pub(super) async fn answered(self, status: StatusCode) {
        self.state.progress().status = Some(status.as_u16());
        // The body of an open stream holds a note.
        if Arc::strong_count(&self.state) == 1
            && let Some(entry) = self.state.last_entry()
        {
            self.state.audit.end(entry).await;
        }
    }

    /// Records the refusal. A caller with many refusals in one second waits for its reply, so that refused calls in
    /// quick succession can neither guess tokens nor delay other callers.
    ///
    /// Cancel safe: the refusal is recorded before the wait.
    pub(super) async fn refused(self, status: StatusCode) {
        self.state.progress().status = Some(status.as_u16());
        self.state.progress().phase = CallPhase::Over;
        if self.state.audit.refused(self.state.refusal()) > REFUSALS_WITHOUT_DELAY {
            sleep(REFUSAL_DELAY).await;
        }
    }
}

impl CallState {
    /// Locks the progress. The lock is held only to read or assign fields.
    fn progress(&self) -> MutexGuard<'_, CallProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(&self) -> Result<(), ApiError> {
        let entry = self.entry(EntryStage::Begin);
        self.audit.begin(entry).await.map_err(|unavailable| {
            ApiError::of(
                ErrorCode::AuditUnavailable,
                format!("{unavailable}: operate calls are refused until it is writable again"),
            )
        })
    }

    fn entry(&self, stage: EntryStage) -> AuditEntry {
        let progress = self.progress();
        let took = self.started.elapsed().as_millis();
        AuditEntry {
            stage,
            by: AuditCaller::new(&progress.peer, progress.has_token),
            action: self.action.clone(),
            vm: self.vm.clone(),
            program: self.program.get().cloned(),
            subject: self.subject.get().cloned(),
            exec_id: self.exec_id.get().cloned(),
            outcome: self.outcome.get().cloned(),
            allowed: true,
            status: progress.status,
            duration_ms: (stage == EntryStage::End).then(|| took.try_into().unwrap_or(u64::MAX)),
            count: None,
            request_id: self.request_id.clone(),
            trace_id: self.trace_id.clone(),
        }
    }

    /// Returns the last entry of an admitted call; `None` if it was returned before.
    fn last_entry(&self) -> Option<AuditEntry> {
        let before = std::mem::replace(&mut self.progress().phase, CallPhase::Over);
        (before == CallPhase::Admitted).then(|| self.entry(EntryStage::End))
    }

    fn refusal(&self) -> Refusal {
        let progress = self.progress();
        Refusal {
            by: AuditCaller::new(&progress.peer, progress.has_token),
            action: self.action.clone(),
            vm: self.vm.clone(),
            request_id: self.request_id.clone(),
            trace_id: self.trace_id.clone(),
            status: progress.status,
        }
    }
}

/// Records calls that ended without a reply: when the state is dropped, the call is over.
impl Drop for CallState {
    fn drop(&mut self) {
        let phase = self.progress().phase;
        match phase {
            CallPhase::Unchecked => {
                self.audit.refused(self.refusal());
            }
            CallPhase::Admitted => {
                if let Some(entry) = self.last_entry() {
                    self.audit.end_without_waiting(&entry);
                }
            }
            CallPhase::Over => {}
        }
    }
}

/// Returns the VM's name in a path below `/vms/`.
fn vm_in(path: &str) -> Option<&str> {
    path.strip_prefix("/vms/")?.split('/').next()
}

fn digest(args: &[String]) -> String {
    let mut digest = Sha256::new();
    for arg in args {
        digest.update(u64::try_from(arg.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(arg);
    }
    hex::encode(digest.finalize())
}
