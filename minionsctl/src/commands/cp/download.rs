//! Copies from a guest to this host. The guest is hostile: its stream may contain anything.

use super::byte_channel::{ChannelReader, first_cause, in_thread, received};
use super::copy_settings::{CopyForm, CopySettings};
use super::failure_log::FailureLog;
use super::job::{CopyDestination, CopyJob, CopySummary};
use super::target::{CopyTarget, DestinationState, SourceName};
use crate::cli::GuestFile;
use crate::client::FileBody;
use crate::copy_error::CopyError;
use crate::failure::Failure;
use minions_api::files::FileKind;
use minions_tree::content::ContentOutput;
use minions_tree::error::failed;
use minions_tree::files::{FileAttributes, NameConflict, TreeRoot};
use minions_tree::pack::{PackOutput, member_name};
use minions_tree::rename::{NewNames, rename_members};
use minions_tree::unpack::{CreatedNames, TarReader, unpack_tree};
use minions_tree::{FileError, SoleName};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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

/// Begins to read a regular file of a guest.
pub(super) async fn open_file<'a>(
    job: &CopyJob<'a>,
    source: &GuestFile,
) -> Result<FileBody<'a>, Failure> {
    let opened = job.client.read_file(source, job.settings.user.as_deref()).await;
    let body = opened.map_err(|failure| match failure {
        Failure::Problem(problem) if problem.errno.as_deref() == Some("EISDIR") => {
            let path = format!("{}:{}", source.vm, String::from_utf8_lossy(&source.path));
            CopyError::IsDirectory { path }.into()
        }
        failure => failure,
    })?;
    job.progress.expect(body.metadata()?.size);
    Ok(body)
}

async fn file(
    job: &CopyJob<'_>,
    source: &GuestFile,
    destination: &CopyDestination,
) -> Result<CopySummary, Failure> {
    let body = open_file(job, source).await?;
    let mode = job.settings.local_mode(body.metadata()?.mode);
    let target = destination.target(&source.path, false)?;
    let (sender, reader) = received();
    let thread = in_thread(move || receive_file(reader, &target, mode))?;
    let pumped = sender.pump(body, job.progress).await;
    let ((), bytes) = first_cause(thread.wait().await?, pumped)?;
    Ok(CopySummary { files: Some(1), bytes })
}

fn receive_file(
    mut reader: ChannelReader,
    target: &CopyTarget,
    mode: u32,
) -> Result<(), FileError> {
    let path = target.path();
    let CopyTarget::Named { parent, name } = target else {
        return Err(FileError::refusal(Errno::ISDIR, &path, "create", "is a directory"));
    };
    let root = open_root(parent)?;
    let location = root.locate(b"", name).map_err(failed(&path, "open"))?;
    let mut new = location.begin_file().map_err(failed(&path, "create"))?;
    loop {
        let bytes = reader.next_bytes().map_err(failed(&path, "input"))?;
        if bytes.is_empty() {
            break;
        }
        new.file().write_all(&bytes).map_err(failed(&path, "write"))?;
    }
    new.set(FileAttributes { mode, owner: None }).map_err(failed(&path, "attributes"))?;
    // Some file systems report a full disk only now.
    new.file().sync_data().map_err(failed(&path, "sync"))?;
    new.publish(NameConflict::Replace).map_err(failed(&path, "rename"))
}

fn open_root(directory: &[u8]) -> Result<TreeRoot, FileError> {
    TreeRoot::following_links(Path::new(OsStr::from_bytes(directory)))
        .map_err(failed(directory, "open"))
}

async fn tree(
    job: &CopyJob<'_>,
    source: &GuestFile,
    destination: &CopyDestination,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    let body = open_tree(job, source).await?;
    let exec = body.exec_id();
    let is_directory = body.metadata()?.kind == FileKind::Directory;
    check_contents(source, is_directory)?;
    let symlink = destination.state == DestinationState::Directory;
    let target = destination.target(&source.path, is_directory)?;
    let (sender, reader) = received();
    let (settings, shared) = (job.settings.clone(), Arc::clone(log));
    let thread = in_thread(move || match is_directory {
        true => receive_tree(reader, &target, &settings, &shared),
        false => receive_one(reader, &target, symlink, &settings, &shared),
    })?;
    let pumped = sender.pump(body, job.progress).await;
    let (files, bytes) = first_cause(thread.wait().await?, pumped)?;
    report_missing(job, source, exec.as_deref(), bytes, log).await?;
    Ok(CopySummary { files: Some(files), bytes })
}

/// Begins to read a tree of a guest.
pub(super) async fn open_tree<'a>(
    job: &CopyJob<'a>,
    source: &GuestFile,
) -> Result<FileBody<'a>, Failure> {
    job.client.read_tree(source, job.settings.user.as_deref(), job.settings.xattrs()).await
}

/// Checks that a source whose contents are copied is a directory. The guest could answer with a link, which would become
/// the destination.
pub(super) fn check_contents(source: &GuestFile, is_directory: bool) -> Result<(), CopyError> {
    if is_directory || SourceName::of(&source.path) != SourceName::Contents {
        return Ok(());
    }
    let path = format!("{}:{}", source.vm, String::from_utf8_lossy(&source.path));
    Err(CopyError::NoContents { path })
}

/// Creates the members of a directory.
fn receive_tree(
    reader: ChannelReader,
    target: &CopyTarget,
    settings: &CopySettings,
    log: &FailureLog,
) -> Result<u64, FileError> {
    let path = target.path();
    let (root, is_new) = match target {
        CopyTarget::Contents { directory } => (open_root(directory)?, false),
        CopyTarget::Named { parent, name } => {
            let made = open_root(parent)?.make_directory(name);
            made.map_err(failed(&path, "mkdir"))?
        }
    };
    receive(reader, &root, &path, CreatedNames::Members { is_new }, settings, log)
}

/// Creates a single file of any other type. `symlink`: it may be a symbolic link.
fn receive_one(
    reader: ChannelReader,
    target: &CopyTarget,
    symlink: bool,
    settings: &CopySettings,
    log: &FailureLog,
) -> Result<u64, FileError> {
    let path = target.path();
    let CopyTarget::Named { parent, name } = target else {
        return Err(FileError::refusal(Errno::ISDIR, &path, "create", "is a directory"));
    };
    let names = CreatedNames::Sole(SoleName { name, symlink });
    receive(reader, &open_root(parent)?, &path, names, settings, log)
}

fn receive(
    reader: ChannelReader,
    root: &TreeRoot,
    path: &[u8],
    names: CreatedNames<'_>,
    settings: &CopySettings,
    log: &FailureLog,
) -> Result<u64, FileError> {
    let mut reader = TarReader::new(reader);
    let mut warn = |error: &FileError| {
        // A file that the guest could not read is reported by the guest.
        if (error.errno(), error.step()) != (Errno::NODATA, "read") {
            log.local(error);
        }
    };
    let options = settings.unpack();
    let files = unpack_tree(root, path, names, options, &mut reader, &mut warn)?;
    reader.into_inner().skip_to_end().map_err(failed(path, "tar"))?;
    Ok(files)
}

/// Reports the files that the guest could not read.
pub(super) async fn report_missing(
    job: &CopyJob<'_>,
    source: &GuestFile,
    exec: Option<&str>,
    received: u64,
    log: &FailureLog,
) -> Result<(), Failure> {
    let Some(exec) = exec else { return Ok(()) };
    let missing = job.client.tree_failures(&source.vm, exec, received).await?;
    log.remote(&missing.failures, missing.failures.len() as u64);
    if missing.is_cut {
        log.report("further files of the guest are missing: the guest no longer has their names");
    }
    Ok(())
}

/// Writes a tar stream to standard output. A directory is in it under its own name.
pub(super) async fn stream(
    job: &CopyJob<'_>,
    source: &GuestFile,
    log: &Arc<FailureLog>,
) -> Result<CopySummary, Failure> {
    let body = open_tree(job, source).await?;
    let exec = body.exec_id();
    let is_directory = body.metadata()?.kind == FileKind::Directory;
    check_contents(source, is_directory)?;
    let path = source.path.clone();
    let options = job.settings.rename(None);
    let (sender, reader) = received();
    let mut output = TarOutput { log: Arc::clone(log), output: io::stdout() };
    let thread = in_thread(move || {
        let name = SourceName::of(&path);
        let names = match &name {
            SourceName::Contents => NewNames::Same,
            SourceName::Named(name) if is_directory => NewNames::Beneath(name),
            SourceName::Named(_) => {
                NewNames::Sole(SoleName { name: member_name(&path), symlink: true })
            }
        };
        let mut reader = TarReader::new(reader);
        let files = rename_members(&mut reader, names, options, &mut output)?;
        output.flush().map_err(|error| FileError::new(&error, b"-", "write"))?;
        reader.into_inner().skip_to_end().map_err(failed(&path, "tar"))?;
        Ok(files)
    })?;
    let pumped = sender.pump(body, job.progress).await;
    let (files, bytes) = first_cause(thread.wait().await?, pumped)?;
    report_missing(job, source, exec.as_deref(), bytes, log).await?;
    Ok(CopySummary { files: Some(files), bytes })
}

/// Standard output, as the receiver of a tar stream.
struct TarOutput {
    log: Arc<FailureLog>,
    output: io::Stdout,
}

impl Write for TarOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl ContentOutput for TarOutput {}

impl PackOutput for TarOutput {
    fn warn(&mut self, error: &FileError) {
        self.log.local(error);
    }
}
