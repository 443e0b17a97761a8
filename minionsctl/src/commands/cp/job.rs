//! A copy: a source, its destination, and the way between them.

use super::copy_end::CopyEnd;
use super::failure_log::FailureLog;
use super::progress::CopyProgress;
use super::target::{CopyTarget, DestinationState, SourceName};
use super::{between, download, upload};
use crate::cli::CopyArgs;
use crate::client::{DaemonClient, PutOptions};
use crate::copy_error::CopyError;
use crate::failure::Failure;
use minions_api::files::FileKind;
use minions_tree::FileError;
use minions_tree::XattrChoice;
use minions_tree::pack::PackOptions;
use minions_tree::unpack::{DeviceChoice, UnpackOptions};
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Form of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyForm {
    /// The contents and permission bits of regular files.
    Files,
    /// Trees (`-r`).
    Trees,
    /// Trees with everything that can be kept (`-a`).
    Archive,
}

/// Settings of all copies of a command.
#[derive(Debug, Clone)]
pub(super) struct CopySettings {
    pub(super) form: CopyForm,
    set_id: bool,
    pub(super) user: Option<String>,
    pub(super) mode: Option<u32>,
}

impl CopySettings {
    pub(super) fn of(args: &CopyArgs) -> Self {
        let form = match (args.archive, args.recursive) {
            (true, _) => CopyForm::Archive,
            (false, true) => CopyForm::Trees,
            (false, false) => CopyForm::Files,
        };
        Self { form, set_id: args.set_id, user: args.user.clone(), mode: args.mode }
    }

    fn is_archive(&self) -> bool {
        self.form == CopyForm::Archive
    }

    /// Reports whether extended attributes are copied.
    pub(super) fn xattrs(&self) -> bool {
        self.is_archive()
    }

    fn xattr_choice(&self) -> XattrChoice {
        if self.is_archive() { XattrChoice::Ordinary } else { XattrChoice::None }
    }

    /// Returns the attributes of a tree that is sent.
    pub(super) fn pack(&self) -> PackOptions {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(0);
        PackOptions {
            xattrs: self.xattr_choice(),
            devices: false,
            mtime: (!self.is_archive()).then_some(now),
        }
    }

    /// Returns the attributes of files that are created on this host.
    pub(super) fn unpack(&self) -> UnpackOptions {
        UnpackOptions {
            times: self.is_archive(),
            owners: self.is_archive() && geteuid().is_root(),
            set_id: self.set_id,
            xattrs: self.xattr_choice(),
            devices: DeviceChoice::LeaveOut,
        }
    }

    /// Returns the attributes of files that are created in a guest.
    pub(super) fn put(&self, parents: bool) -> PutOptions {
        let user = self.user.as_deref().map(|user| user.split(':').next().unwrap_or(user));
        PutOptions {
            user: self.user.clone(),
            parents,
            mode: self.mode,
            xattrs: self.xattrs(),
            owners: self.is_archive() && matches!(user, None | Some("root" | "0")),
            set_id: self.set_id,
        }
    }
}

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

    /// Copies one source.
    pub(super) async fn copy(
        &self,
        source: &CopyEnd,
        destination: &CopyDestination,
        log: &Arc<FailureLog>,
    ) -> Result<CopySummary, Failure> {
        match (source, &destination.end) {
            (CopyEnd::Host(path), CopyEnd::Guest(_)) => {
                upload::run(self, path, destination, log).await
            }
            (CopyEnd::Stream, CopyEnd::Guest(file)) => {
                upload::stream(self, file, destination.state, log).await
            }
            (CopyEnd::Guest(file), CopyEnd::Host(_)) => {
                download::run(self, file, destination, log).await
            }
            (CopyEnd::Guest(file), CopyEnd::Stream) => download::stream(self, file, log).await,
            (CopyEnd::Guest(file), CopyEnd::Guest(_)) => {
                between::run(self, file, destination, log).await
            }
            (CopyEnd::Host(_) | CopyEnd::Stream, CopyEnd::Host(_) | CopyEnd::Stream) => {
                Err(Failure::Usage("one of source and destination must be in a guest: VM:/PATH"))
            }
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
