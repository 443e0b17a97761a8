//! `PUT /vms/{vm}/files`: writes a file, or unpacks a tree.

use super::super::audit::AuditNote;
use super::super::extract::{CallerTimeout, QueryParams, TheVm};
use super::super::problem::{ApiError, FileProblems};
use super::super::state::ApiState;
use super::call::{FileCall, FileParams, OCTETS, TAR};
use crate::files::FileStream;
use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use bytes::Bytes;
use futures_util::StreamExt;
use minions_api::files::FileWritten;
use minions_api::{ErrorCode, VmName};
use minions_proto::message::{FileOperation, UnpackTree, WriteStream};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// Maximum time without a byte from the client.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct WriteParams {
    /// Absolute path in the guest: the file, or the directory for a tree.
    #[param(example = "/etc/motd")]
    #[serde(default)]
    path: String,
    /// Path as base64, instead of `path`, if it is not UTF-8.
    path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number (default: root).
    user: Option<String>,
    /// Permission bits of the file, in octal (default: those of the replaced file, or 644).
    #[param(example = "644")]
    mode: Option<String>,
    /// Owner of the file, `USER` or `USER:GROUP` (default: that of the replaced file, or `user`).
    owner: Option<String>,
    /// Create missing parent directories; for a tree, also the directory itself.
    parents: Option<bool>,
    /// Set the extended attributes in the stream (trees only).
    xattrs: Option<bool>,
    /// Keep set-user-id and set-group-id (trees only).
    set_id: Option<bool>,
    /// Set the numeric owners in the stream; by default, the files belong to `user` (trees only).
    owners: Option<bool>,
    /// Milliseconds after which the caller gets an `agent_timeout` if the operation could not be started.
    /// There is no limit for the whole transfer, but it ends after 60 s without a byte.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Write a file or a tree in a guest
///
/// The body is the contents of a regular file. The file gets its name when it is complete; an interrupted
/// transfer changes nothing. `If-Match` with an ETag replaces only this version; `If-None-Match: *` only
/// creates the file. With `Content-Type: application/x-tar`, the members of the body are created beneath the
/// directory: never outside of it, without devices, and without following symbolic links. After an
/// interrupted transfer, the members that were complete remain.
#[utoipa::path(
    put, path = "/vms/{vm}/files", operation_id = "write_file", tag = "files",
    params(
        ("vm" = VmName, Path),
        WriteParams,
        ("If-Match" = Option<String>, Header, description = "ETag of the version to replace"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only create the file"),
    ),
    request_body(description = "The file, or a tree",
        content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-tar"))),
    responses((status = 200, description = "Written", body = FileWritten), FileProblems),
)]
pub(in super::super) async fn write_file(
    State(api): State<ApiState>,
    vm: TheVm,
    QueryParams(params): QueryParams<WriteParams>,
    note: AuditNote,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<FileWritten>, ApiError> {
    let WriteParams {
        path,
        path_base64,
        user,
        mode,
        owner,
        parents,
        xattrs,
        set_id,
        owners,
        timeout_ms,
    } = params;
    let patience = CallerTimeout::of(timeout_ms)?;
    let form = BodyForm::of(&headers)?;
    let mode = mode.map(|mode| octal(&mode)).transpose()?;
    let condition = WriteCondition::of(&headers)?;
    refuse_partial_content(&headers)?;
    // Ignoring a parameter could change the meaning of the request.
    match form {
        BodyForm::File => refuse(
            "a file",
            &[
                ("xattrs", xattrs.is_some()),
                ("set_id", set_id.is_some()),
                ("owners", owners.is_some()),
            ],
        )?,
        BodyForm::Tree => refuse(
            "a tree",
            &[
                ("mode", mode.is_some()),
                ("owner", owner.is_some()),
                ("If-Match", condition.if_match.is_some()),
                ("If-None-Match", condition.create_only),
            ],
        )?,
    }
    let file = FileParams { path, path_base64, user };
    let (call, path) = FileCall::begin(api, vm, note, file, &patience).await?;
    let parents = parents.unwrap_or(false);
    let op = match form {
        BodyForm::File => FileOperation::Write(WriteStream {
            path,
            mode,
            owner,
            parents,
            if_match: condition.if_match,
            create_only: condition.create_only,
        }),
        BodyForm::Tree => FileOperation::TarIn(UnpackTree {
            path,
            parents,
            xattrs: xattrs.unwrap_or(false),
            set_id: set_id.unwrap_or(false),
            owners: owners.unwrap_or(false),
        }),
    };
    let mut stream = call.start(op).await?;
    send(&call, &mut stream, body.into_data_stream()).await?;
    let header = stream.header().await.map_err(|error| call.failed(error))?;
    while stream.next().await.map_err(|error| call.failed(error))?.is_some() {}
    call.succeeded();
    let result = stream.into_result();
    Ok(Json(FileWritten {
        status: "ok".into(),
        file: header.metadata,
        count: header.count,
        left_out: result.left_out,
        failures: result.warnings,
    }))
}

/// Moves the body to the guest, and ends the input. Returns early if the operation has ended.
async fn send(
    call: &FileCall,
    stream: &mut FileStream,
    mut body: BodyDataStream,
) -> Result<(), ApiError> {
    loop {
        let chunk = tokio::select! {
            chunk = timeout(IDLE, body.next()) => chunk,
            // An operation can fail before it has read all of its input, for example if the disk is full.
            ended = stream.ended() => return ended.map_err(|error| call.failed(error)),
        };
        let mut bytes: Bytes = match chunk {
            Ok(Some(Ok(bytes))) => bytes,
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(cut(call, "the body ended early")),
            Err(_) => return Err(cut(call, "no byte of the body arrived within 60 s")),
        };
        while !bytes.is_empty() {
            if stream.make_room().await.map_err(|error| call.failed(error))? {
                return Ok(());
            }
            let room = stream.room().min(bytes.len());
            stream.push(bytes.split_to(room));
        }
    }
    stream.end_input();
    Ok(())
}

/// Returns the problem for an incomplete body. The input was not ended, so no incomplete file gets its final name.
fn cut(call: &FileCall, detail: &str) -> ApiError {
    call.note.outcome(|| "input_cut".to_owned());
    ApiError::malformed(None, format!("{detail}; no incomplete file was kept"))
}

/// Refuses a part of a file: writing it as the whole file would lose the rest.
fn refuse_partial_content(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(CONTENT_RANGE) {
        let detail = "`Content-Range` is not supported: a file is written as a whole";
        return Err(ApiError::malformed(Some("Content-Range".into()), detail));
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let detail =
                format!("the body has the content encoding {encoding:?}: send it without one");
            Err(ApiError::of(ErrorCode::UnsupportedMediaType, detail))
        }
        _ => Ok(()),
    }
}

/// Refuses parameters and conditions that do not apply to this form of the body.
fn refuse(form: &str, given: &[(&str, bool)]) -> Result<(), ApiError> {
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((name, _)) => {
            let detail = format!("`{name}` does not apply to {form}");
            Err(ApiError::malformed(Some((*name).into()), detail))
        }
    }
}

/// Form of the body.
enum BodyForm {
    File,
    Tree,
}

impl BodyForm {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(media_type) = headers.get(CONTENT_TYPE) else { return Ok(Self::File) };
        let essence = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        match essence.trim().to_ascii_lowercase().as_str() {
            OCTETS => Ok(Self::File),
            TAR => Ok(Self::Tree),
            other => Err(ApiError::of(
                ErrorCode::UnsupportedMediaType,
                format!(
                    "the content type is {other:?}: must be {OCTETS} for a file, or {TAR} for a tree"
                ),
            )),
        }
    }
}

/// VmConditions in the request's headers.
struct WriteCondition {
    if_match: Option<String>,
    create_only: bool,
}

impl WriteCondition {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let if_match = headers.get(IF_MATCH).map(|value| {
            let text = value.to_str().unwrap_or_default();
            let etag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            etag.filter(|etag| !etag.contains('"')).map(str::to_owned).ok_or_else(|| {
                let detail = format!("`If-Match` is {text:?}: must be one ETag in quotes");
                ApiError::malformed(Some("If-Match".into()), detail)
            })
        });
        let create_only = match headers.get(IF_NONE_MATCH) {
            None => false,
            Some(value) if value == "*" => true,
            Some(value) => {
                let detail =
                    format!("`If-None-Match` is {value:?}: must be `*`, to only create the file");
                return Err(ApiError::malformed(Some("If-None-Match".into()), detail));
            }
        };
        Ok(Self { if_match: if_match.transpose()?, create_only })
    }
}

/// Parses permission bits in octal.
pub(super) fn octal(text: &str) -> Result<u32, ApiError> {
    let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok();
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| {
        let detail = format!("`mode` is {text:?}: must be octal, at most 7777");
        ApiError::malformed(Some("mode".into()), detail)
    })
}
