//! Parts that all copies of a command have in common, and their destination.

use super::copy_end::CopyEnd;
use super::copy_settings::CopySettings;
use super::progress::CopyProgress;
use super::target::{CopyTarget, DestinationState, SourceName};
use crate::cli::GuestFile;
use crate::client::DaemonClient;
use crate::copy_error::CopyError;
use crate::failure::Failure;
use minions_api::ErrorCode;
use minions_api::files::FileKind;
use minions_tree::FileError;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

/// Result of one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CopySummary {
    /// Number of files that were created, if known.
    pub(super) files: Option<u64>,
    /// Number of bytes that were transferred.
    pub(super) bytes: u64,
}

/// Everything that the copies of one command have in common.
#[derive(Debug)]
pub(super) struct CopyJob<'a> {
    pub(super) client: &'a DaemonClient,
    pub(super) settings: &'a CopySettings,
    pub(super) progress: &'a CopyProgress,
}

/// Destination of the copies of one command.
#[derive(Debug)]
pub(super) struct CopyDestination {
    pub(super) end: CopyEnd,
    pub(super) state: DestinationState,
}

impl CopyDestination {
    /// Returns the place for a source.
    pub(super) fn target(
        &self,
        source: &[u8],
        is_directory: bool,
    ) -> Result<CopyTarget, CopyError> {
        CopyTarget::of(&self.end, self.state, &SourceName::of(source), is_directory)
    }
}

impl CopyJob<'_> {
    /// Examines the destination, of several sources if `several` is set.
    pub(super) async fn destination(
        &self,
        end: CopyEnd,
        several: bool,
    ) -> Result<CopyDestination, Failure> {
        let state = match &end {
            CopyEnd::Stream => DestinationState::OtherFile,
            CopyEnd::Host(path) => host_state(path)?,
            CopyEnd::Guest(file) => {
                let user = self.settings.user.as_deref();
                match self.client.find_file(file, user).await?.map(|found| found.kind) {
                    None => DestinationState::Missing,
                    Some(FileKind::Directory) => DestinationState::Directory,
                    Some(_) => DestinationState::OtherFile,
                }
            }
        };
        match state {
            DestinationState::OtherFile if several => {
                Err(CopyError::NotDirectory { path: end.to_string() }.into())
            }
            DestinationState::Missing if several => {
                Err(CopyError::NoDirectory { path: end.to_string() }.into())
            }
            state => Ok(CopyDestination { end, state }),
        }
    }

    /// Checks that the name of a directory in a guest is not a symbolic link, which an earlier copy from another guest may
    /// have created: the agent would follow it.
    pub(super) async fn check_no_link(&self, directory: &GuestFile) -> Result<(), Failure> {
        let found = self.client.stat_file(directory, self.settings.user.as_deref(), false).await;
        match found {
            Ok(found) if found.kind == FileKind::Symlink => {
                let path = CopyEnd::Guest(directory.clone()).to_string();
                Err(CopyError::IsLink { path }.into())
            }
            Err(Failure::Problem(problem)) if problem.code == ErrorCode::FileNotFound => Ok(()),
            found => found.map(drop),
        }
    }

    /// Checks that the directory of a new directory in a guest exists, because the agent would create it.
    pub(super) async fn check_parent(&self, parent: &CopyEnd) -> Result<(), Failure> {
        let CopyEnd::Guest(file) = parent else { return Ok(()) };
        let found = self.client.stat_file(file, self.settings.user.as_deref(), true).await?;
        match found.kind {
            FileKind::Directory => Ok(()),
            _ => Err(CopyError::NotDirectory { path: parent.to_string() }.into()),
        }
    }
}

fn host_state(path: &[u8]) -> Result<DestinationState, CopyError> {
    match fs::metadata(OsStr::from_bytes(path)) {
        Ok(found) if found.is_dir() => Ok(DestinationState::Directory),
        Ok(_) => Ok(DestinationState::OtherFile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DestinationState::Missing),
        Err(error) => Err(FileError::new(&error, path, "stat").into()),
    }
}
