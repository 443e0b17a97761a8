//! Copies from guest to guest. The bytes pass through this process, never through a file.

use super::byte_channel::{ChannelWriter, first_cause, in_thread, received};
use super::copy_end::CopyEnd;
use super::copy_settings::CopyForm;
use super::download::{check_contents, open_file, open_tree, report_missing};
use super::failure_log::FailureLog;
use super::job::{CopyDestination, CopyJob, CopySummary};
use super::target::{CopyTarget, DestinationState};
use super::upload::summary;
use crate::cli::GuestFile;
use crate::client::{END, FileBody, UploadSender, upload_body};
use crate::failure::Failure;
use minions_api::files::FileKind;
use minions_tree::SoleName;
use minions_tree::error::failed;
use minions_tree::rename::{NewNames, rename_members};
use minions_tree::unpack::TarReader;
use std::io;
use std::sync::Arc;

/// Copies a file or a tree.
pub(super) async fn run(
    job: &CopyJob<'_>,
    source: &GuestFile,
    destination: &CopyDestination,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    match job.settings.form {
        CopyForm::Files => file(job, source, destination).await,
        CopyForm::Trees | CopyForm::Archive => tree(job, source, destination, log).await,
    }
}

/// Returns a file of the destination's guest.
fn guest(destination: &CopyDestination, path: Vec<u8>) -> Result<GuestFile, Failure> {
    match destination.end.with_path(path) {
        CopyEnd::Guest(file) => Ok(file),
        CopyEnd::Host(_) | CopyEnd::Stream => {
            Err(Failure::Usage("the destination must be in a guest"))
        }
    }
}

async fn file(
    job: &CopyJob<'_>,
    source: &GuestFile,
    destination: &CopyDestination,
) -> Result<CopySummary, Failure> {
    let from = open_file(job, source).await?;
    let mut options = job.settings.put(false);
    options.mode = options.mode.or(Some(from.metadata()?.mode & 0o777));
    let to = guest(destination, destination.target(&source.path, false)?.path())?;
    let (sender, body) = upload_body();
    let (pumped, written) =
        tokio::join!(pump(job, from, sender), job.client.write_file(&to, &options, body));
    // If the destination refused the file, the pump stopped without a failure.
    let bytes = pumped?;
    written?;
    Ok(CopySummary { files: Some(1), bytes })
}

/// Moves an answer to a request. If the answer breaks off, the request is aborted.
async fn pump(job: &CopyJob<'_>, mut from: FileBody<'_>, to: UploadSender) -> Result<u64, Failure> {
    let mut len = 0;
    loop {
        match from.next().await {
            Ok(Some(bytes)) => {
                len += bytes.len() as u64;
                job.progress.add(bytes.len());
                if to.send(Ok(bytes)).await.is_err() {
                    return Ok(len);
                }
            }
            Ok(None) => {
                let _ = to.send(Ok(END)).await;
                return Ok(len);
            }
            Err(failure) => {
                let _ = to.send(Err(io::Error::other("the source broke off"))).await;
                return Err(failure);
            }
        }
    }
}

async fn tree(
    job: &CopyJob<'_>,
    source: &GuestFile,
    destination: &CopyDestination,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    let from = open_tree(job, source).await?;
    let exec = from.exec_id();
    let is_directory = from.metadata()?.kind == FileKind::Directory;
    check_contents(source, is_directory)?;
    let symlink = destination.state == DestinationState::Directory;
    let target = destination.target(&source.path, is_directory)?;
    let (directory, sole) = match &target {
        CopyTarget::Named { parent, name } if !is_directory => (parent.clone(), Some(name.clone())),
        target => (target.path(), None),
    };
    let parents = is_directory && matches!(target, CopyTarget::Named { .. });
    if let (CopyTarget::Named { parent, .. }, DestinationState::Missing) =
        (&target, destination.state)
    {
        job.check_parent(&destination.end.with_path(parent.clone())).await?;
    }
    let to = guest(destination, directory)?;
    if parents {
        job.check_no_link(&to).await?;
    }
    let (sender, reader) = received();
    let (upload, body) = upload_body();
    // The received bytes are counted already.
    let hidden = super::progress::CopyProgress::new(true);
    let mut writer = ChannelWriter::new(upload, &hidden, log);
    let path = source.path.clone();
    let options = job.settings.rename(job.settings.pack().mtime);
    let thread = in_thread(move || {
        let sole = sole.as_deref().map(|name| SoleName { name, symlink });
        let names = sole.map_or(NewNames::Same, NewNames::Sole);
        let mut reader = TarReader::new(reader);
        let renamed = rename_members(&mut reader, names, options, &mut writer);
        let whole =
            renamed.and_then(|_| reader.into_inner().skip_to_end().map_err(failed(&path, "tar")));
        writer.finish(whole)
    })?;
    let put = job.settings.put(parents);
    let (pumped, written) =
        tokio::join!(sender.pump(from, job.progress), job.client.write_tree(&to, &put, body));
    let connections = pumped.and_then(|bytes| Ok((bytes, written?)));
    let (_, (bytes, written)) = first_cause(thread.wait().await?, connections)?;
    report_missing(job, source, exec.as_deref(), bytes, log).await?;
    Ok(summary(written, bytes, log))
}
