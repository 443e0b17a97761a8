//! A call that concerns a file: its audit entries, its start and its failures.

use super::super::audit::AuditNote;
use super::super::exec::generate_id;
use super::super::extract::{CallerTimeout, TheVm};
use super::super::problem::ApiError;
use super::super::state::ApiState;
use crate::agent::TransportError;
use crate::files::{FileError, FileStream};
use crate::vm::Vm;
use minions_proto::Invalid;
use minions_proto::file_stream::FileHeader;
use minions_proto::message::{FileOperation, GuestPath, GuestTarget};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Default deadline for starting an operation.
const START: Duration = Duration::from_secs(30);

/// Media type of a tree.
pub(super) const TAR: &str = "application/x-tar";

/// Media type of a file.
pub(super) const OCTETS: &str = "application/octet-stream";

/// File of a request, and the user whose rights apply.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FileParams {
    /// Absolute path in the guest.
    #[param(example = "/etc/hostname")]
    #[serde(default)]
    pub(super) path: String,
    /// Path as base64, instead of `path`, if it is not UTF-8.
    pub(super) path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number (default: root).
    pub(super) user: Option<String>,
}

impl FileParams {
    fn split(self) -> (GuestPath, Option<String>) {
        let Self { path, path_base64, user } = self;
        (GuestPath { path, path_base64 }, user)
    }
}

/// Call that concerns a file.
pub(super) struct FileCall {
    pub(super) api: ApiState,
    pub(super) vm: Vm,
    pub(super) note: AuditNote,
    user: Option<String>,
    deadline: Instant,
}

impl FileCall {
    /// Creates the call, and writes its first audit entry, with the path.
    ///
    /// # Errors
    ///
    /// `invalid_request` for the path or the timeout; `audit_unavailable`.
    pub(super) async fn begin(
        api: ApiState,
        TheVm(vm): TheVm,
        note: AuditNote,
        params: FileParams,
        patience: &CallerTimeout,
    ) -> Result<(Self, GuestPath), ApiError> {
        let (path, user) = params.split();
        let shown = path.bytes().map_err(|invalid| in_query(&invalid))?;
        note.subject(&String::from_utf8_lossy(&shown)).await?;
        let deadline = patience.deadline_or(START);
        Ok((Self { api, vm, note, user, deadline }, path))
    }

    /// Creates the call that renames a file, and writes its first audit entry, with both names.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin), and `invalid_request` for the new name.
    pub(super) async fn begin_move(
        api: ApiState,
        TheVm(vm): TheVm,
        note: AuditNote,
        params: FileParams,
        to: &GuestTarget,
        patience: &CallerTimeout,
    ) -> Result<(Self, GuestPath), ApiError> {
        let (path, user) = params.split();
        let old = path.bytes().map_err(|invalid| in_query(&invalid))?;
        let new = to.bytes().map_err(|invalid| in_query(&invalid))?;
        let [old, new] = [&old, &new].map(|name| String::from_utf8_lossy(name));
        note.subject(&format!("{old} -> {new}")).await?;
        let deadline = patience.deadline_or(START);
        Ok((Self { api, vm, note, user, deadline }, path))
    }

    /// Creates the call for a file session, and writes its first audit entry, with the user.
    ///
    /// # Errors
    ///
    /// `audit_unavailable`.
    pub(super) async fn begin_session(
        api: ApiState,
        TheVm(vm): TheVm,
        note: AuditNote,
        user: Option<String>,
        patience: &CallerTimeout,
    ) -> Result<Self, ApiError> {
        note.subject(&format!("file session of user {}", user.as_deref().unwrap_or("root")))
            .await?;
        Ok(Self { api, vm, note, user, deadline: patience.deadline_or(START) })
    }

    /// Starts the operation.
    pub(super) async fn start(&self, op: FileOperation) -> Result<FileStream, ApiError> {
        op.validate().map_err(|invalid| in_query(&invalid))?;
        let id = generate_id()?;
        self.note.exec(id.as_str());
        let execs = &self.api.execs;
        let user = self.user.clone();
        let started = FileStream::start(execs, &self.vm, id, user, op, self.deadline).await;
        started.map_err(|error| self.failed(FileError::Exec(error)))
    }

    /// Waits for the header of an operation that sends it at once, until the call's deadline.
    pub(super) async fn first_header(
        &self,
        stream: &mut FileStream,
    ) -> Result<FileHeader, ApiError> {
        let header = timeout_at(self.deadline, stream.header()).await.unwrap_or_else(|_| {
            let late = TransportError::TimedOut { sent: true };
            Err(FileError::Exec(late.into()))
        });
        header.map_err(|error| self.failed(error))
    }

    /// Converts a failure, and records it as the call's outcome.
    pub(super) fn failed(&self, error: FileError) -> ApiError {
        let error = ApiError::file(self.vm.name(), error);
        self.note.outcome(|| error.code().to_string());
        error
    }

    /// Records the success of the call.
    pub(super) fn succeeded(&self) {
        self.note.outcome(|| "ok".to_owned());
    }
}

/// Converts an invalid field of the wire message to that of the REST request, whose fields have no prefix `op.`.
fn in_query(invalid: &Invalid) -> ApiError {
    let field = invalid.field.strip_prefix("op.").unwrap_or(&invalid.field);
    ApiError::invalid(&Invalid { field: field.to_owned(), ..invalid.clone() })
}
