//! Copies from this host to a guest.

use super::byte_channel::{ChannelWriter, first_cause, in_thread};
use super::copy_end::CopyEnd;
use super::copy_settings::CopyForm;
use super::failure_log::FailureLog;
use super::job::{CopyDestination, CopyJob, CopySummary};
use super::measure::measure;
use super::target::{CopyTarget, DestinationState};
use crate::cli::GuestFile;
use crate::client::upload_body;
use crate::copy_error::CopyError;
use crate::failure::Failure;
use minions_api::files::FileWritten;
use minions_tree::error::failed;
use minions_tree::pack::pack_tree;
use minions_tree::walk::{open_as_path, reopen};
use minions_tree::{BUFFER_LEN, FileError};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Maximum time for the reason of a thread whose request has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Copies a file or a tree.
pub(super) async fn run(
    job: &CopyJob<'_>,
    path: &[u8],
    destination: &CopyDestination,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    match job.settings.form {
        CopyForm::Files => file(job, path, destination, log).await,
        CopyForm::Trees | CopyForm::Archive => tree(job, path, destination, log).await,
    }
}

async fn file(
    job: &CopyJob<'_>,
    path: &[u8],
    destination: &CopyDestination,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    let opened = open_as_path(path, true).map_err(CopyError::from)?;
    let stat = fstat(&opened).map_err(failed(path, "stat")).map_err(CopyError::from)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(CopyError::IsDirectory { path: shown() }.into()),
        _ => return Err(CopyError::NotRegular { path: shown() }.into()),
    }
    let source = reopen(&opened).map_err(failed(path, "open")).map_err(CopyError::from)?;
    let target = destination.target(path, false)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    job.progress.expect(size);
    let (sender, body) = upload_body();
    let mut writer = ChannelWriter::new(sender, job.progress, log);
    let name = path.to_vec();
    let thread = in_thread(move || {
        let sent = send_file(source, size, &name, &mut writer);
        writer.finish(sent)
    })?;
    let mut options = job.settings.put(false);
    options.mode = options.mode.or(Some(stat.st_mode & 0o777));
    let CopyEnd::Guest(to) = destination.end.with_path(target.path()) else {
        return Err(Failure::Usage("the destination must be in a guest"));
    };
    let written = job.client.write_file(&to, &options, body).await;
    let (bytes, _) = first_cause(thread.wait().await?, written)?;
    Ok(CopySummary { files: Some(1), bytes })
}

/// Sends a regular file, at most `size` bytes. A file of size 0 is read to its end, because files in `/proc` have no
/// size.
fn send_file(
    mut file: File,
    size: u64,
    path: &[u8],
    output: &mut impl Write,
) -> Result<(), FileError> {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut left = if size == 0 { u64::MAX } else { size };
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BUFFER_LEN).min(BUFFER_LEN);
        match file.read(&mut buffer[..most]) {
            Ok(0) if size == 0 => return Ok(()),
            Ok(0) => {
                let reason = "the file became shorter while it was read";
                return Err(FileError::refusal(Errno::NODATA, path, "read", reason));
            }
            Ok(read) => {
                output.write_all(&buffer[..read]).map_err(|error| FileError::not_sent(&error))?;
                left -= read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::new(&error, path, "read")),
        }
    }
    Ok(())
}

async fn tree(
    job: &CopyJob<'_>,
    path: &[u8],
    destination: &CopyDestination,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    let root = open_as_path(path, false).map_err(CopyError::from)?;
    let stat = fstat(&root).map_err(failed(path, "stat")).map_err(CopyError::from)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let target = destination.target(path, is_directory)?;
    let (directory, name) = match &target {
        CopyTarget::Named { parent, name } if !is_directory => (parent.clone(), name.clone()),
        target => (target.path(), Vec::new()),
    };
    let parents = is_directory && matches!(target, CopyTarget::Named { .. });
    if let (CopyTarget::Named { parent, .. }, DestinationState::Missing) =
        (&target, destination.state)
    {
        job.check_parent(&destination.end.with_path(parent.clone())).await?;
    }
    if job.progress.is_shown() {
        let (progress, path) = (job.progress.clone(), path.to_vec());
        in_thread(move || progress.expect(measure(&path)))?;
    }
    let (sender, body) = upload_body();
    let writer = ChannelWriter::new(sender, job.progress, log);
    let thread = pack_in_thread(job, root, path, name, writer)?;
    let CopyEnd::Guest(to) = destination.end.with_path(directory) else {
        return Err(Failure::Usage("the destination must be in a guest"));
    };
    let written = job.client.write_tree(&to, &job.settings.put(parents), body).await;
    let (bytes, written) = first_cause(thread.wait().await?, written)?;
    Ok(summary(written, bytes, log))
}

fn pack_in_thread(
    job: &CopyJob<'_>,
    root: OwnedFd,
    path: &[u8],
    name: Vec<u8>,
    mut writer: ChannelWriter,
) -> Result<super::byte_channel::ThreadResult<Result<u64, FileError>>, Failure> {
    let (path, options) = (path.to_vec(), job.settings.pack());
    in_thread(move || {
        let packed = pack_tree(&root, &path, &name, options, &mut writer);
        writer.finish(packed)
    })
}

/// Reports the files that the guest left out, except those that the sender has reported.
pub(super) fn summary(written: FileWritten, bytes: u64, log: &FailureLog) -> CopySummary {
    let is_known = |errno: &str, step: &str| errno == "ENODATA" && step == "read";
    let before = written.failures.len() as u64;
    let failures: Vec<_> = written
        .failures
        .into_iter()
        .filter(|failure| !is_known(&failure.errno, &failure.step))
        .collect();
    let known = before - failures.len() as u64;
    log.remote(&failures, written.left_out.saturating_sub(known));
    CopySummary { files: written.count, bytes }
}

/// Sends a tar stream from standard input to an existing directory.
pub(super) async fn stream(
    job: &CopyJob<'_>,
    directory: &GuestFile,
    state: DestinationState,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    let shown = CopyEnd::Guest(directory.clone()).to_string();
    match state {
        DestinationState::Directory => {}
        DestinationState::OtherFile => return Err(CopyError::NotDirectory { path: shown }.into()),
        DestinationState::Missing => return Err(CopyError::NoDirectory { path: shown }.into()),
    }
    let (sender, body) = upload_body();
    let mut writer = ChannelWriter::new(sender, job.progress, log);
    let thread = in_thread(move || {
        let copied = io::copy(&mut io::stdin().lock(), &mut writer);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::BrokenPipe => FileError::not_sent(&error),
            _ => FileError::new(&error, b"-", "read"),
        };
        writer.finish(copied.map_err(failed))
    })?;
    let written = job.client.write_tree(directory, &job.settings.put(false), body).await;
    let sent = if written.is_err() {
        // Standard input may stay open, so the thread may not end.
        match timeout(LAST_WORDS, thread.wait()).await {
            Ok(sent) => sent?,
            Err(_) => Err(FileError::not_sent(&io::ErrorKind::BrokenPipe.into())),
        }
    } else {
        thread.wait().await?
    };
    let (bytes, written) = first_cause(sent, written)?;
    log.remote(&written.failures, written.left_out);
    Ok(CopySummary { files: written.count, bytes })
}
