//! `GET /vms/{vm}/files/list`: the entries of a directory, one per line.

use super::super::audit::Note;
use super::super::extract::{Params, Patience, TheVm};
use super::super::problem::{ApiError, FileProblems};
use super::super::state::ApiState;
use super::super::streamed::streamed;
use super::{FileCall, FileParams};
use crate::files::{FileError, FileStream};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use minions_api::VmName;
use minions_api::exec::NDJSON;
use minions_api::files::DirectoryEntry;
use minions_proto::file_stream::LineDecoder;
use minions_proto::message::{FileOperation, ListDirectory};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ListParams {
    /// Absolute path of a directory in the guest.
    #[param(example = "/etc")]
    #[serde(default)]
    path: String,
    /// Path as base64, if it is not UTF-8; instead of `path`.
    path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number; default root.
    user: Option<String>,
    /// Milliseconds after which the caller gets an `agent_timeout` instead of the first entry. There is no
    /// limit for the whole list.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// List a directory of a guest
///
/// Returns one entry per line (NDJSON), unsorted. A directory may have any number of entries. If the
/// list breaks off, the last line is missing its newline or the connection is aborted.
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
    Params(params): Params<ListParams>,
    note: Note,
) -> Result<Response, ApiError> {
    let ListParams { path, path_base64, user, timeout_ms } = params;
    let patience = Patience::of(timeout_ms)?;
    let file = FileParams { path, path_base64, user };
    let (call, path) = FileCall::begin(api, vm, note, file, &patience).await?;
    let mut stream = call.start(FileOperation::List(ListDirectory { path })).await?;
    stream.header().await.map_err(|error| call.failed(error))?;
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

/// JSON lines of an operation.
pub(super) struct GuestLines {
    stream: FileStream,
    lines: LineDecoder,
}

impl GuestLines {
    pub(super) fn new(stream: FileStream) -> Self {
        Self { stream, lines: LineDecoder::default() }
    }

    /// Waits for the next line; `None` at the successful end.
    ///
    /// Cancel safe.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FileError> {
        loop {
            if let Some(line) = self.lines.next_json()? {
                return Ok(Some(line));
            }
            match self.stream.next().await? {
                Some(bytes) => self.lines.extend(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// Waits for a line, and returns it with all lines that have arrived, parsed and encoded again: lines
    /// of a guest are never passed on as they are.
    async fn next_block<T>(&mut self) -> Result<Option<Bytes>, FileError>
    where
        T: DeserializeOwned + Serialize,
    {
        let Some(first) = self.next::<T>().await? else { return Ok(None) };
        let mut block = Vec::new();
        let mut line = Some(first);
        while let Some(entry) = line {
            // Texts and numbers: serializing cannot fail.
            block.extend(serde_json::to_vec(&entry).unwrap_or_default());
            block.push(b'\n');
            line = self.lines.next_json()?;
        }
        Ok(Some(block.into()))
    }
}
