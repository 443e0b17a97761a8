//! `GET` and `HEAD /vms/{vm}/files`: a file, a part of it, its metadata, or a tree.

use super::super::audit::AuditNote;
use super::super::extract::{CallerTimeout, QueryParams, TheVm};
use super::super::problem::{ApiError, FileReadProblems};
use super::super::state::ApiState;
use super::call::{FileCall, FileParams, TAR};
use super::headers;
use super::range::{self, RequestedRange};
use crate::files::FileStream;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use minions_api::files::{FileKind, FileMetadata};
use minions_api::{ErrorCode, VmName};
use minions_proto::file_stream::FileHeader;
use minions_proto::message::{FileOperation, GuestPath, PackTree, ReadFile, StatFile};
use serde::Deserialize;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ReadParams {
    /// Absolute path in the guest.
    #[param(example = "/etc/hostname")]
    #[serde(default)]
    path: String,
    /// Path as base64, instead of `path`, if it is not UTF-8.
    path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number (default: root).
    user: Option<String>,
    /// Describe a symbolic link instead of its target (`HEAD` only).
    no_follow: Option<bool>,
    /// Include extended attributes (trees only).
    xattrs: Option<bool>,
    /// Milliseconds after which the caller gets an `agent_timeout` if the operation could not be started.
    /// There is no limit for the whole transfer.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Read a file or a tree in a guest
///
/// Returns the contents of a regular file, with its metadata in headers. `Range`, `If-Range` and
/// `If-None-Match` are supported. `HEAD` returns only the headers, for files of every type. With
/// `Accept: application/x-tar`, the reply is a directory, and everything beneath it, as a tar stream. Files
/// that could not be read are missing in it; the standard error of the exec whose id is in the header
/// `X-Minions-Exec` names them.
#[utoipa::path(
    get, path = "/vms/{vm}/files", operation_id = "read_file", tag = "files",
    params(
        ("vm" = VmName, Path),
        ReadParams,
        ("Accept" = Option<String>, Header, description = "`application/x-tar` selects a tree"),
        ("Range" = Option<String>, Header, description = "A part of a file: `bytes=0-99`"),
        ("If-Range" = Option<String>, Header, description = "ETag that the file must have for `Range` to apply"),
        ("If-None-Match" = Option<String>, Header, description = "ETag for which the reply is a 304"),
    ),
    responses(
        (status = 200, description = "The file, or the tree",
            content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-tar"))),
        (status = 206, description = "A part of the file", content_type = "application/octet-stream"),
        (status = 304, description = "The file has the ETag of `If-None-Match`"),
        FileReadProblems,
    ),
)]
pub(in super::super) async fn read_file(
    State(api): State<ApiState>,
    vm: TheVm,
    QueryParams(params): QueryParams<ReadParams>,
    note: AuditNote,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ReadParams { path, path_base64, user, no_follow, xattrs, timeout_ms } = params;
    let patience = CallerTimeout::of(timeout_ms)?;
    let file = FileParams { path, path_base64, user };
    let (call, path) = FileCall::begin(api, vm, note, file, &patience).await?;
    if method == Method::HEAD {
        let info = stat(&call, path, !no_follow.unwrap_or(false)).await?;
        call.succeeded();
        return Ok(described(&info));
    }
    if wants_tar(&headers) {
        return tree(call, path, xattrs.unwrap_or(false)).await;
    }
    file_contents(call, path, &headers).await
}

/// Returns the reply to `HEAD`: for a regular file, the headers of the reply to `GET`.
fn described(info: &FileMetadata) -> Response {
    if info.kind != FileKind::File {
        return headers::of_any(info).into_response();
    }
    let mut headers = headers::of_file(info);
    headers::set_length(&mut headers, info.size);
    headers.into_response()
}

/// Reports whether the request accepts the media type of a tree.
fn wants_tar(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    accepted.filter_map(|accept| accept.to_str().ok()).any(|accept| accept.contains(TAR))
}

async fn stat(call: &FileCall, path: GuestPath, follow: bool) -> Result<FileMetadata, ApiError> {
    let mut stream = call.start(FileOperation::Stat(StatFile { path, follow })).await?;
    let header = call.first_header(&mut stream).await?;
    Ok(header.metadata)
}

async fn file_contents(
    call: FileCall,
    path: GuestPath,
    request: &HeaderMap,
) -> Result<Response, ApiError> {
    let mut read = ReadFile { path: path.clone(), ..ReadFile::default() };
    if range::is_requested(request) {
        let info = stat(&call, path, true).await?;
        match range::requested(request, info.size, &info.etag)? {
            RequestedRange::Whole => {}
            RequestedRange::Part(part) => {
                read.offset = *part.start();
                read.length = Some(part.end() - part.start() + 1);
                read.if_range = Some(info.etag);
            }
            RequestedRange::Unsatisfiable => {
                let detail = format!(
                    "the range begins after the end of the file, which has {} bytes",
                    info.size
                );
                let error = ApiError::of(ErrorCode::RangeNotSatisfiable, detail);
                call.note.outcome(|| error.code().to_string());
                let mut headers = HeaderMap::new();
                range::set_unsatisfiable(&mut headers, info.size);
                return Ok((headers, error.about(call.vm.name().clone())).into_response());
            }
        }
    }
    let asked = read.length.is_some();
    let mut stream = call.start(FileOperation::Read(read)).await?;
    let header = call.first_header(&mut stream).await?;
    let FileHeader { metadata, offset, length, .. } = header;
    let info = metadata;
    if is_known(request, &info.etag) {
        call.succeeded();
        return Ok((StatusCode::NOT_MODIFIED, headers::of_any(&info)).into_response());
    }
    let mut reply = headers::of_file(&info);
    let mut status = StatusCode::OK;
    if let Some(length) = length {
        headers::set_length(&mut reply, length);
        let offset = offset.unwrap_or(0);
        if asked && length > 0 && (offset > 0 || length < info.size) {
            status = StatusCode::PARTIAL_CONTENT;
            range::set_part(&mut reply, &(offset..=offset + length - 1), info.size);
        }
    }
    Ok((status, reply, body(call, stream, length)).into_response())
}

/// Reports whether the client already has the version with this etag.
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let quoted = format!("\"{etag}\"");
    let known = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|list| list.split(',')).any(|item| {
        let item = item.trim();
        item == "*" || item.strip_prefix("W/").unwrap_or(item) == quoted
    })
}

async fn tree(call: FileCall, path: GuestPath, xattrs: bool) -> Result<Response, ApiError> {
    let mut stream = call.start(FileOperation::TarOut(PackTree { path, xattrs })).await?;
    let header = call.first_header(&mut stream).await?;
    let mut reply = headers::of_any(&header.metadata);
    reply.insert(CONTENT_TYPE, HeaderValue::from_static(TAR));
    if let Ok(id) = HeaderValue::from_str(stream.id().as_str()) {
        reply.insert(headers::EXEC_ID, id);
    }
    Ok((reply, body(call, stream, None)).into_response())
}

/// Data of a file or tree on its way to the client.
struct FileTransfer {
    call: FileCall,
    stream: FileStream,
    /// Number of bytes until the end, if the reply states its length. The HTTP server does not ask for the end after the
    /// last of them.
    left: Option<u64>,
}

/// Records how the transfer ended, if nothing else did.
impl Drop for FileTransfer {
    fn drop(&mut self) {
        let is_complete = self.left == Some(0);
        self.call.note.outcome(|| if is_complete { "ok" } else { "cut" }.to_owned());
    }
}

impl FileTransfer {
    async fn next(&mut self) -> Result<Option<Bytes>, std::io::Error> {
        match self.stream.next().await {
            Ok(Some(bytes)) => {
                let len = bytes.len() as u64;
                self.left = self.left.map(|left| left.saturating_sub(len));
                Ok(Some(bytes))
            }
            Ok(None) => {
                self.call.succeeded();
                Ok(None)
            }
            Err(error) => {
                let vm = self.call.vm.name();
                tracing::debug!(%vm, %error, "a transfer from a guest was aborted");
                self.call.failed(error);
                Err(std::io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

/// Returns the body with the rest of the stream. If the operation fails, the body is aborted, so that a client does not
/// treat it as complete.
fn body(call: FileCall, stream: FileStream, length: Option<u64>) -> Body {
    let transfer = FileTransfer { call, stream, left: length };
    Body::from_stream(futures_util::stream::try_unfold(transfer, |mut transfer| async move {
        transfer.next().await.map(|bytes| bytes.map(|bytes| (bytes, transfer)))
    }))
}
