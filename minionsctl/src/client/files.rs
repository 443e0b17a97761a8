//! Calls about files of guests.

use super::daemon_client::{CallDeadlines, DaemonClient, vm_path};
use super::lines::JsonLines;
use crate::cli::GuestFile;
use crate::failure::Failure;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minions_api::files::{
    DirectoryEntry, FileMetadata, FileRemoved, MakeDirectoryRequest, MoveFileRequest,
};
use reqwest::{Method, RequestBuilder, Response};
use std::time::Duration;
use tokio::time::timeout;

/// Response header with a file's metadata, as JSON.
const FILE_INFO: &str = "x-minions-file";

/// Response header with the id of the exec that reads a tree.
const EXEC_ID: &str = "x-minions-exec";

/// Maximum time until minionsd has started an operation.
const START: Duration = Duration::from_secs(45);

/// Maximum time without a byte of an answer's body: the daemon notices a silent agent after 20 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Contents of a file that are being received.
#[derive(Debug)]
pub(crate) struct FileBody<'a> {
    pub(super) client: &'a DaemonClient,
    pub(super) response: Response,
}

impl FileBody<'_> {
    /// Returns the metadata of the file, or of the root of the tree.
    pub(crate) fn metadata(&self) -> Result<FileMetadata, Failure> {
        self.client.metadata(&self.response)
    }

    /// Returns the id of the exec whose standard error names the files that are missing in a tree.
    pub(crate) fn exec_id(&self) -> Option<String> {
        self.response.headers().get(EXEC_ID)?.to_str().ok().map(str::to_owned)
    }

    /// Waits for the next bytes; `None` after the complete contents.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        timeout(SILENCE, self.response.chunk())
            .await
            .map_err(|_| self.client.broke_off())?
            .map_err(|error| self.client.no_response(error))
    }
}

/// Returns the query parameters for a file of a guest and the user whose rights apply.
pub(super) fn file_query(file: &GuestFile, user: Option<&str>) -> Vec<(&'static str, String)> {
    let mut query = vec![match std::str::from_utf8(&file.path) {
        Ok(path) => ("path", path.to_owned()),
        Err(_) => ("path_base64", BASE64_STANDARD.encode(&file.path)),
    }];
    query.extend(user.map(|user| ("user", user.to_owned())));
    query
}

/// Returns the fields `path` and `path_base64` of a JSON request.
fn path_fields(path: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(path) {
        Ok(path) => (Some(path.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(path))),
    }
}

impl DaemonClient {
    pub(super) fn file_request(
        &self,
        method: Method,
        file: &GuestFile,
        resource: &str,
        query: &[(&'static str, String)],
    ) -> Result<RequestBuilder, Failure> {
        let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = self.url(&vm_path(&file.vm, resource), &query)?;
        Ok(self.http.request(method, url))
    }

    /// Sends a request, and waits for the status and the headers of the answer.
    async fn start(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = timeout(START, request.send())
            .await
            .map_err(|_| self.broke_off())?
            .map_err(|error| self.no_response(error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.problem(response).await)
        }
    }

    fn metadata(&self, response: &Response) -> Result<FileMetadata, Failure> {
        let header = response.headers().get(FILE_INFO).map(|value| value.as_bytes());
        let header = header.ok_or_else(|| self.not_minionsd(format!("no {FILE_INFO}")))?;
        serde_json::from_slice(header).map_err(|error| self.not_minionsd(error.to_string()))
    }

    /// Returns the metadata of a file of any type.
    pub(crate) async fn stat_file(
        &self,
        file: &GuestFile,
        user: Option<&str>,
        follow: bool,
    ) -> Result<FileMetadata, Failure> {
        let mut query = file_query(file, user);
        query.push(("no_follow", (!follow).to_string()));
        let url: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = self.url(&vm_path(&file.vm, "/files"), &url)?;
        let response = timeout(START, self.http.request(Method::HEAD, url).send())
            .await
            .map_err(|_| self.broke_off())?
            .map_err(|error| self.no_response(error))?;
        if response.status().is_success() {
            return self.metadata(&response);
        }
        // The answer to HEAD has no body, so no problem. Listing a path that does not exist fails in the same way, with
        // a problem.
        Err(match self.list_files(file, user).await {
            Err(failure) => failure,
            Ok(_) => self.not_minionsd(format!("status {}", response.status())),
        })
    }

    /// Returns the entries of a directory.
    pub(crate) async fn list_files(
        &self,
        file: &GuestFile,
        user: Option<&str>,
    ) -> Result<JsonLines<'_, DirectoryEntry>, Failure> {
        let query = file_query(file, user);
        let request = self.file_request(Method::GET, file, "/files/list", &query)?;
        self.json_lines(request).await
    }

    /// Reads a regular file.
    pub(crate) async fn read_file(
        &self,
        file: &GuestFile,
        user: Option<&str>,
    ) -> Result<FileBody<'_>, Failure> {
        let request = self.file_request(Method::GET, file, "/files", &file_query(file, user))?;
        self.file_body(request).await
    }

    pub(super) async fn file_body(&self, request: RequestBuilder) -> Result<FileBody<'_>, Failure> {
        let response = self.start(request).await?;
        Ok(FileBody { client: self, response })
    }

    /// Removes a file of any type.
    pub(crate) async fn remove_file(
        &self,
        file: &GuestFile,
        user: Option<&str>,
        recursive: bool,
    ) -> Result<FileRemoved, Failure> {
        let mut query = file_query(file, user);
        query.push(("recursive", recursive.to_string()));
        let request = self.file_request(Method::DELETE, file, "/files", &query)?;
        self.send(request).await
    }

    /// Creates a directory.
    pub(crate) async fn make_directory(
        &self,
        file: &GuestFile,
        user: Option<&str>,
        parents: bool,
        mode: Option<String>,
        patience: CallDeadlines,
    ) -> Result<FileMetadata, Failure> {
        let (path, path_base64) = path_fields(&file.path);
        let user = user.map(str::to_owned);
        let request =
            MakeDirectoryRequest { path, path_base64, user, parents: Some(parents), mode };
        let url = vm_path(&file.vm, "/files/mkdir");
        self.send_json(Method::POST, &url, &request, patience).await
    }

    /// Renames a file of any type.
    pub(crate) async fn move_file(
        &self,
        file: &GuestFile,
        to: &[u8],
        user: Option<&str>,
        no_replace: bool,
        patience: CallDeadlines,
    ) -> Result<FileMetadata, Failure> {
        let (path, path_base64) = path_fields(&file.path);
        let (to, to_base64) = path_fields(to);
        let user = user.map(str::to_owned);
        let no_replace = Some(no_replace);
        let request = MoveFileRequest { path, path_base64, to, to_base64, user, no_replace };
        let url = vm_path(&file.vm, "/files/move");
        self.send_json(Method::POST, &url, &request, patience).await
    }
}
