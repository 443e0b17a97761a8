//! `DELETE /vms/{vm}/files`, `POST /vms/{vm}/files/mkdir` and `…/move`.

use super::super::audit::AuditNote;
use super::super::extract::{CallParams, CallerTimeout, JsonBody, QueryParams, TheVm};
use super::super::problem::{ApiError, FileBodyProblems, FileProblems};
use super::super::state::ApiState;
use super::call::{FileCall, FileParams};
use super::write::octal;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use minions_api::VmName;
use minions_api::files::{FileMetadata, FileRemoved, MakeDirectoryRequest, MoveFileRequest};
use minions_proto::file_stream::FileHeader;
use minions_proto::message::{FileOperation, GuestTarget, MakeDirectory, RemoveFile, RenameFile};
use serde::Deserialize;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct RemoveParams {
    /// Absolute path in the guest. A symbolic link is removed, not followed.
    #[param(example = "/tmp/results")]
    #[serde(default)]
    path: String,
    /// Path as base64, instead of `path`, if it is not UTF-8.
    path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number (default: root).
    user: Option<String>,
    /// Remove a directory with everything beneath it. Without this, only an empty directory is removed.
    recursive: Option<bool>,
    /// Milliseconds after which the caller gets an `agent_timeout` if the operation could not be started.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Remove a file or a directory in a guest
///
/// Removes a file of any type. A directory must be empty unless `recursive` is set.
#[utoipa::path(
    delete, path = "/vms/{vm}/files", operation_id = "remove_file", tag = "files",
    params(("vm" = VmName, Path), RemoveParams),
    responses((status = 200, description = "Removed", body = FileRemoved), FileProblems),
)]
pub(in super::super) async fn remove_file(
    State(api): State<ApiState>,
    vm: TheVm,
    QueryParams(params): QueryParams<RemoveParams>,
    note: AuditNote,
    headers: HeaderMap,
) -> Result<Json<FileRemoved>, ApiError> {
    // Ignoring a condition would remove another version than the caller's.
    if let Some(name) = [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE]
        .into_iter()
        .find(|name| headers.contains_key(name))
    {
        let detail = format!("`{name}` is not supported for removing a file");
        return Err(ApiError::malformed(Some(name.to_string()), detail));
    }
    let RemoveParams { path, path_base64, user, recursive, timeout_ms } = params;
    let patience = CallerTimeout::of(timeout_ms)?;
    let file = FileParams { path, path_base64, user };
    let (call, path) = FileCall::begin(api, vm, note, file, &patience).await?;
    let op = FileOperation::Remove(RemoveFile { path, recursive: recursive.unwrap_or(false) });
    let header = to_the_end(&call, op).await?;
    let count = header.count.unwrap_or(1);
    Ok(Json(FileRemoved { status: "ok".into(), file: header.metadata, count }))
}

/// Create a directory in a guest
///
/// With `parents`, also creates missing parents, and accepts a directory that already exists.
#[utoipa::path(
    post, path = "/vms/{vm}/files/mkdir", operation_id = "make_directory", tag = "files",
    params(("vm" = VmName, Path), CallParams),
    request_body = MakeDirectoryRequest,
    responses((status = 200, description = "Created", body = FileMetadata), FileBodyProblems),
)]
pub(in super::super) async fn make_directory(
    State(api): State<ApiState>,
    vm: TheVm,
    patience: CallerTimeout,
    note: AuditNote,
    JsonBody(request): JsonBody<MakeDirectoryRequest>,
) -> Result<Json<FileMetadata>, ApiError> {
    let MakeDirectoryRequest { path, path_base64, user, parents, mode } = request;
    let mode = mode.map(|mode| octal(&mode)).transpose()?;
    let file = FileParams { path: path.unwrap_or_default(), path_base64, user };
    let (call, path) = FileCall::begin(api, vm, note, file, &patience).await?;
    let parents = parents.unwrap_or(false);
    let op = FileOperation::Mkdir(MakeDirectory { path, parents, mode });
    to_the_end(&call, op).await.map(|header| Json(header.metadata))
}

/// Rename a file or a directory in a guest
///
/// The new name must be in the same file system. An existing file of this name is replaced, unless
/// `no_replace` is set.
#[utoipa::path(
    post, path = "/vms/{vm}/files/move", operation_id = "move_file", tag = "files",
    params(("vm" = VmName, Path), CallParams),
    request_body = MoveFileRequest,
    responses((status = 200, description = "Renamed", body = FileMetadata), FileBodyProblems),
)]
pub(in super::super) async fn move_file(
    State(api): State<ApiState>,
    vm: TheVm,
    patience: CallerTimeout,
    note: AuditNote,
    JsonBody(request): JsonBody<MoveFileRequest>,
) -> Result<Json<FileMetadata>, ApiError> {
    let MoveFileRequest { path, path_base64, to, to_base64, user, no_replace } = request;
    let file = FileParams { path: path.unwrap_or_default(), path_base64, user };
    let to = GuestTarget { to: to.unwrap_or_default(), to_base64 };
    let (call, path) = FileCall::begin_move(api, vm, note, file, &to, &patience).await?;
    let no_replace = no_replace.unwrap_or(false);
    let op = FileOperation::Rename(RenameFile { path, to, no_replace });
    to_the_end(&call, op).await.map(|header| Json(header.metadata))
}

/// Runs an operation that has no data to its end, and returns its header.
async fn to_the_end(call: &FileCall, op: FileOperation) -> Result<FileHeader, ApiError> {
    let mut stream = call.start(op).await?;
    let header = stream.header().await.map_err(|error| call.failed(error))?;
    while stream.next().await.map_err(|error| call.failed(error))?.is_some() {}
    call.succeeded();
    Ok(header)
}
