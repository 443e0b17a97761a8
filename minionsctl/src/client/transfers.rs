//! Files and trees that are sent to guests, and trees that are received from them.

use super::daemon_client::{DaemonClient, vm_path};
use super::files::{FileBody, file_query};
use super::upload_body::UploadBody;
use crate::cli::GuestFile;
use crate::failure::Failure;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minions_api::exec::{Chunk, ExecEvent, StreamName};
use minions_api::files::{FileFailure, FileMetadata, FileWritten};
use minions_api::{ErrorCode, VmName};
use minions_proto::file_stream::LineDecoder;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Media type of a tree.
const TAR: &str = "application/x-tar";

/// Maximum time for the list of failures, which the agent has already.
const FAILURES: Duration = Duration::from_secs(30);

/// Maximum time in which an upload neither continues nor ends. minionsd ends one after 60 s without a byte, and notices a
/// silent agent after 20 s; the rest is for a slow disk.
const STANDSTILL: Duration = Duration::from_secs(120);

/// Largest number of failures that are kept; further ones are only counted.
const MAX_FAILURES: usize = 1000;

/// Options of a file or tree that is sent to a guest.
#[derive(Debug, Clone, Default)]
pub(crate) struct PutOptions {
    /// User whose rights apply.
    pub(crate) user: Option<String>,
    /// Create the directory of a tree.
    pub(crate) parents: bool,
    /// Permission bits of a file.
    pub(crate) mode: Option<u32>,
    /// Set the extended attributes of a tree.
    pub(crate) xattrs: bool,
    /// Set the owners of a tree.
    pub(crate) owners: bool,
    /// Keep set-user-id and set-group-id in a tree.
    pub(crate) set_id: bool,
}

/// Files that are missing in a tree that was received.
#[derive(Debug, Default)]
pub(crate) struct TreeFailures {
    /// Failures, at most [`MAX_FAILURES`].
    pub(crate) failures: Vec<FileFailure>,
    /// True if the guest no longer has all of them.
    pub(crate) is_cut: bool,
}

impl DaemonClient {
    /// Returns the metadata of a file, or `None` if it does not exist. Symbolic links are followed.
    pub(crate) async fn find_file(
        &self,
        file: &GuestFile,
        user: Option<&str>,
    ) -> Result<Option<FileMetadata>, Failure> {
        let mut found = self.stat_file(file, user, true).await;
        if matches!(found, Err(Failure::NotMinionsd { .. })) {
            // The file may have been created between the two requests of `stat_file`.
            found = self.stat_file(file, user, true).await;
        }
        match found {
            Err(Failure::Problem(problem)) if problem.code == ErrorCode::FileNotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Reads a file of any type, and everything beneath a directory, as a tar stream.
    pub(crate) async fn read_tree(
        &self,
        file: &GuestFile,
        user: Option<&str>,
        xattrs: bool,
    ) -> Result<FileBody<'_>, Failure> {
        let mut query = file_query(file, user);
        query.push(("xattrs", xattrs.to_string()));
        let request = self.file_request(Method::GET, file, "/files", &query)?;
        self.file_body(request.header(ACCEPT, TAR)).await
    }

    /// Returns the failures that the exec of a tree has reported. Its standard output, of which the client has `received`
    /// bytes, is not sent again.
    pub(crate) async fn tree_failures(
        &self,
        vm: &VmName,
        exec: &str,
        received: u64,
    ) -> Result<TreeFailures, Failure> {
        let path = vm_path(vm, &format!("/execs/{exec}/output?stdout_offset={received}"));
        let collected = timeout(FAILURES, self.collect_failures(&path)).await;
        collected.unwrap_or_else(|_| Err(self.broke_off()))
    }

    async fn collect_failures(&self, path: &str) -> Result<TreeFailures, Failure> {
        let mut events = self.get_lines::<ExecEvent>(path).await?;
        let mut lines = LineDecoder::default();
        let mut found = TreeFailures::default();
        loop {
            match events.next().await?.ok_or_else(|| self.broke_off())? {
                ExecEvent::Stderr(chunk) => lines.extend(&self.bytes(&chunk)?),
                ExecEvent::Gap { stream: StreamName::Stderr, .. } => found.is_cut = true,
                ExecEvent::Started { .. }
                | ExecEvent::Heartbeat
                | ExecEvent::Stdout(_)
                | ExecEvent::Gap { .. } => {}
                ExecEvent::Exit { .. } | ExecEvent::End => return Ok(found),
                ExecEvent::Error { problem } => return Err(Failure::Problem(Box::new(problem))),
            }
            while let Some(failure) = lines
                .next_json::<FileFailure>()
                .map_err(|error| self.not_minionsd(error.to_string()))?
            {
                if found.failures.len() < MAX_FAILURES {
                    found.failures.push(failure);
                } else {
                    found.is_cut = true;
                }
            }
        }
    }

    fn bytes(&self, chunk: &Chunk) -> Result<Vec<u8>, Failure> {
        match (&chunk.data, &chunk.data_base64) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(base64)) => {
                BASE64_STANDARD.decode(base64).map_err(|error| self.not_minionsd(error.to_string()))
            }
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Writes a regular file.
    pub(crate) async fn write_file(
        &self,
        file: &GuestFile,
        options: &PutOptions,
        upload: UploadBody,
    ) -> Result<FileWritten, Failure> {
        let mut query = file_query(file, options.user.as_deref());
        query.extend(options.mode.map(|mode| ("mode", format!("{mode:o}"))));
        let request = self.file_request(Method::PUT, file, "/files", &query)?;
        self.upload(request, upload).await
    }

    /// Creates the members of a tar stream beneath a directory.
    pub(crate) async fn write_tree(
        &self,
        directory: &GuestFile,
        options: &PutOptions,
        upload: UploadBody,
    ) -> Result<FileWritten, Failure> {
        let PutOptions { user, parents, xattrs, owners, set_id, .. } = options;
        let mut query = file_query(directory, user.as_deref());
        let flags =
            [("parents", parents), ("xattrs", xattrs), ("owners", owners), ("set_id", set_id)];
        query.extend(flags.map(|(name, is_set)| (name, is_set.to_string())));
        let request: RequestBuilder =
            self.file_request(Method::PUT, directory, "/files", &query)?;
        self.upload(request.header(CONTENT_TYPE, TAR), upload).await
    }

    /// Sends a request with a body of any length. Fails if the connection takes no part of it for a long time.
    async fn upload(
        &self,
        request: RequestBuilder,
        upload: UploadBody,
    ) -> Result<FileWritten, Failure> {
        let UploadBody { body, taken } = upload;
        let stands_still = async {
            loop {
                let before = taken.load(Ordering::Relaxed);
                sleep(STANDSTILL).await;
                if taken.load(Ordering::Relaxed) == before {
                    return;
                }
            }
        };
        tokio::select! {
            written = self.send(request.body(body)) => written,
            () = stands_still => Err(self.broke_off()),
        }
    }
}
