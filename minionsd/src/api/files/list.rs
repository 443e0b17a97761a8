//! `GET /vms/{vm}/files/list`: the entries of a directory, one per line.

use super::super::audit::AuditNote;
use super::super::extract::{CallerTimeout, QueryParams, TheVm};
use super::super::problem::{ApiError, FileProblems};
use super::super::state::ApiState;
use super::super::streamed::streamed;
use super::call::{FileCall, FileParams};
use super::lines::GuestLines;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use minions_api::VmName;
use minions_api::exec::NDJSON;
use minions_api::files::DirectoryEntry;
use minions_proto::message::{FileOperation, ListDirectory};
use serde::Deserialize;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ListParams {
    /// Absolute path of a directory in the guest.
    #[param(example = "/etc")]
    #[serde(default)]
    path: String,
    /// Path as base64, instead of `path`, if it is not UTF-8.
    path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number (default: root).
    user: Option<String>,
    /// Milliseconds after which the caller gets an `agent_timeout` if the operation could not be started.
    /// There is no limit for the whole list.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// List a directory of a guest
///
/// Returns one entry per line (NDJSON), in the order of the file system. The number of entries is not
/// limited. If the operation fails after the reply has begun, the body is aborted.
#[utoipa::path(
    get, path = "/vms/{vm}/files/list", operation_id = "list_files", tag = "files",
    params(("vm" = VmName, Path), ListParams),
    responses(
        (status = 200, description = "Entries of the directory", body = DirectoryEntry,
            content_type = "application/x-ndjson"),
        FileProblems,
    ),
)]
pub(in super::super) async fn list_files(
    State(api): State<ApiState>,
    vm: TheVm,
    QueryParams(params): QueryParams<ListParams>,
    note: AuditNote,
) -> Result<Response, ApiError> {
    let ListParams { path, path_base64, user, timeout_ms } = params;
    let patience = CallerTimeout::of(timeout_ms)?;
    let file = FileParams { path, path_base64, user };
    let (call, path) = FileCall::begin(api, vm, note, file, &patience).await?;
    let mut stream = call.start(FileOperation::List(ListDirectory { path })).await?;
    call.first_header(&mut stream).await?;
    let lines = GuestLines::new(stream);
    let body = Body::from_stream(futures_util::stream::try_unfold(
        (call, lines),
        |(call, mut lines)| async move {
            match lines.next_block::<DirectoryEntry>().await {
                Ok(Some(block)) => Ok(Some((block, (call, lines)))),
                Ok(None) => {
                    call.succeeded();
                    Ok(None)
                }
                Err(error) => {
                    call.failed(error);
                    Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
                }
            }
        },
    ));
    Ok(streamed(NDJSON, body))
}
