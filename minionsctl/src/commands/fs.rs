//! `minionsctl fs`: files of a guest.

use super::context::Context;
use crate::cli::{FileLocation, FsArgs, FsCommand, GuestFile};
use crate::client::DaemonClient;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::{Rows, write_to};
use minions_api::files::{DirectoryEntry, FileKind, FileMetadata};
use minions_proto::channel::OutputStream;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

/// Number of entries of a directory that are sorted and aligned together. A larger directory is printed in several parts,
/// so that its size, which the guest determines, does not determine the memory in use.
const SORTED: usize = 10_000;

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    args: &FsArgs,
) -> Result<ExitStatus, Failure> {
    let user = args.user.as_deref();
    match &args.command {
        FsCommand::Ls { file } => list(context, client, file, user).await,
        FsCommand::Cat { file } => print(client, file, user).await,
        FsCommand::Stat { file, dereference } => {
            let metadata = client.stat_file(file, user, *dereference).await?;
            context.printer.result(&metadata, table)?;
            Ok(ExitStatus::Success)
        }
        FsCommand::Mkdir { file, parents, mode } => {
            let patience = context.quick();
            let made = client.make_directory(file, user, *parents, mode.clone(), patience).await?;
            json_only(context, &made)
        }
        FsCommand::Mv { file, to, no_clobber } => {
            let to = new_name(file, to)?;
            let moved = client.move_file(file, &to, user, *no_clobber, context.quick()).await?;
            json_only(context, &moved)
        }
        FsCommand::Rm { files, recursive } => {
            remove(context, client, files, user, *recursive).await
        }
    }
}

/// Prints an answer only with `-o json`: in the table format, success needs no output.
fn json_only<T: serde::Serialize>(
    context: &Context<'_>,
    answer: &T,
) -> Result<ExitStatus, Failure> {
    if context.printer.is_structured() {
        context.printer.json(answer)?;
    }
    Ok(ExitStatus::Success)
}

async fn list(
    context: &Context<'_>,
    client: &DaemonClient,
    file: &GuestFile,
    user: Option<&str>,
) -> Result<ExitStatus, Failure> {
    let mut lines = client.list_files(file, user).await?;
    let mut entries = Vec::new();
    let mut table = Rows::with_header(&["MODE", "OWNER", "SIZE", "MODIFIED", "NAME"]);
    let mut is_first = true;
    while let Some(entry) = lines.next().await? {
        if context.printer.is_structured() {
            context.printer.json_line(&entry)?;
            continue;
        }
        entries.push(entry);
        if entries.len() == SORTED {
            print_sorted(context, std::mem::take(&mut entries), std::mem::take(&mut table))?;
            is_first = false;
        }
    }
    if !context.printer.is_structured() && (is_first || !entries.is_empty()) {
        print_sorted(context, entries, table)?;
    }
    Ok(ExitStatus::Success)
}

/// Prints entries below the rows that are already in the table.
fn print_sorted(
    context: &Context<'_>,
    mut entries: Vec<DirectoryEntry>,
    table: Rows,
) -> Result<(), Failure> {
    entries.sort_by_cached_key(DirectoryEntry::name_bytes);
    context
        .printer
        .result(&entries, |entries| entries.iter().fold(table, |rows, entry| rows.row(row(entry))))
}

fn row(entry: &DirectoryEntry) -> [String; 5] {
    let file = &entry.metadata;
    let name = match &file.target {
        Some(target) => format!("{} -> {target}", entry.name),
        None => entry.name.clone(),
    };
    [mode(file), format!("{}:{}", file.uid, file.gid), file.size.to_string(), modified(file), name]
}

/// Formats type and permission bits as `ls -l` does.
fn mode(file: &FileMetadata) -> String {
    let kind = match file.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Other => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = file.mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, file.mode & special != 0) {
            (false, false) => '-',
            (true, false) => 'x',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
    text
}

fn modified(file: &FileMetadata) -> String {
    let Ok(since) = u64::try_from(file.mtime_ns) else {
        // The library knows no time before 1970.
        return format!("@{}", file.mtime_ns.div_euclid(1_000_000_000));
    };
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(since));
    time.map_or_else(String::new, |time| humantime::format_rfc3339_seconds(time).to_string())
}

fn table(file: &FileMetadata) -> Rows {
    Rows::new()
        .value("Mode:", mode(file))
        .value("Size:", file.size)
        .value("Owner:", format!("{}:{}", file.uid, file.gid))
        .value("Links:", file.nlink)
        .value("Modified:", modified(file))
        .value("ETag:", &file.etag)
        .optional("Target:", file.target.as_ref())
}

/// Prints the contents of the file, byte for byte.
async fn print(
    client: &DaemonClient,
    file: &GuestFile,
    user: Option<&str>,
) -> Result<ExitStatus, Failure> {
    let mut body = client.read_file(file, user).await?;
    while let Some(bytes) = body.next().await? {
        write_to(OutputStream::Stdout, &bytes).map_err(Failure::Output)?;
    }
    Ok(ExitStatus::Success)
}

/// Returns the path of the new name, which is an absolute path or a file of the same VM.
fn new_name(file: &GuestFile, to: &OsStr) -> Result<Vec<u8>, Failure> {
    match FileLocation::parse(to)? {
        FileLocation::Guest(to) if to.vm == file.vm => Ok(to.path),
        FileLocation::Guest(_) => Err(Failure::Usage(
            "fs mv renames files within one VM: the new name must be in the same VM",
        )),
        FileLocation::Host(path) if path.is_absolute() => Ok(path.as_os_str().as_bytes().to_vec()),
        FileLocation::Host(_) => {
            Err(Failure::Usage("the new name must be an absolute path in the guest"))
        }
    }
}

/// Removes the files, and continues after a failure. Fails with the first failure.
async fn remove(
    context: &Context<'_>,
    client: &DaemonClient,
    files: &[GuestFile],
    user: Option<&str>,
    recursive: bool,
) -> Result<ExitStatus, Failure> {
    let mut first = None;
    for file in files {
        match client.remove_file(file, user, recursive).await {
            Ok(removed) => {
                json_only(context, &removed)?;
            }
            Err(failure) if first.is_none() => first = Some(failure),
            Err(failure) => context.printer.failure(&failure),
        }
    }
    first.map_or(Ok(ExitStatus::Success), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: FileKind, mode: u32) -> FileMetadata {
        FileMetadata {
            kind,
            size: 0,
            mode,
            uid: 0,
            gid: 0,
            nlink: 1,
            mtime_ns: 1_500_000_000,
            etag: "x".into(),
            target: None,
            target_base64: None,
        }
    }

    #[test]
    fn modes_are_shown_as_ls_does() {
        assert_eq!(mode(&file(FileKind::File, 0o4755)), "-rwsr-xr-x");
        assert_eq!(mode(&file(FileKind::Directory, 0o1777)), "drwxrwxrwt");
        assert_eq!(mode(&file(FileKind::Symlink, 0o2640)), "lrw-r-S---");
    }

    #[test]
    fn times_are_shown_in_utc() {
        let mut file = file(FileKind::File, 0);
        assert_eq!(modified(&file), "1970-01-01T00:00:01Z");
        file.mtime_ns = -1;
        assert_eq!(modified(&file), "@-1");
        file.mtime_ns = i64::MAX;
        assert_eq!(modified(&file), "2262-04-11T23:47:16Z");
    }
}
