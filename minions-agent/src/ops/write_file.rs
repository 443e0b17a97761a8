//! `write_file`: writes a file in the guest.

use crate::error_chain;
use minions_proto::message::{Done, WriteFile};
use minions_proto::{AgentError, ErrorCode, Invalid};
use minions_tree::files::{FileAttributes, FileLocation, MODE_BITS, ResolveError, is_regular};
use rustix::fs::{FileType, Stat, fstat};
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Mode of a new file if the request has none.
const DEFAULT_MODE: u32 = 0o644;

/// Reason why nothing was written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("cannot write {path:?}")]
    Io { path: String, source: io::Error },
    #[error("the write was interrupted")]
    Interrupted,
}

/// Answers the request. A write that has begun is completed even if the host disconnects.
pub(super) async fn answer(call: WriteFile) -> Result<Done, AgentError> {
    let written = crate::task::spawn_blocking(move || write(&call)).await;
    written.unwrap_or(Err(WriteError::Interrupted)).map_err(refused)
}

fn refused(error: WriteError) -> AgentError {
    match error {
        WriteError::Invalid(invalid) => invalid.into(),
        WriteError::Io { ref source, .. } => {
            let errno = source.raw_os_error();
            AgentError::new(ErrorCode::IoFailed, error_chain(&error)).with_errno(errno)
        }
        WriteError::Interrupted => AgentError::new(ErrorCode::Internal, error_chain(&error)),
    }
}

fn write(call: &WriteFile) -> Result<Done, WriteError> {
    validate(call)?;
    let failed = |source| WriteError::Io { path: call.path.clone(), source };
    let location = FileLocation::make(Path::new(&call.path)).map_err(|error| match error {
        ResolveError::Io(source) => failed(source),
        refused => unfit(call, &refused.to_string()).into(),
    })?;
    let present = location.present().map_err(failed)?;
    writable(call, present.as_ref())?;
    let content = call.content.as_bytes();
    if call.append {
        append(call, &location)?;
    } else {
        let trusted = present.filter(|file| is_regular(file) && location.trusts(file));
        location.replace(content, attributes(call.mode, trusted.as_ref())).map_err(failed)?;
    }
    Ok(Done { message: format!("wrote {} bytes to {}", content.len(), call.path) })
}

fn unfit(call: &WriteFile, reason: &str) -> Invalid {
    Invalid::value("path", &call.path, reason)
}

/// Checks that need no access to the file system.
fn validate(call: &WriteFile) -> Result<(), Invalid> {
    let invalid = |reason| Err(Invalid::value("path", &call.path, reason));
    if call.path.contains('\0') {
        return Err(Invalid::new("path", "contains a NUL byte"));
    }
    if !call.path.starts_with('/') {
        return invalid("must be absolute: start it with /");
    }
    let has_no_name = Path::new(&call.path).file_name().is_none();
    if has_no_name || call.path.ends_with('/') || call.path.ends_with("/.") {
        return invalid("must end with a file name");
    }
    match call.mode {
        Some(mode) if mode > MODE_BITS => {
            let reason = format!("is {mode}: must be at most {MODE_BITS} (0o7777)");
            Err(Invalid::new("mode", reason))
        }
        _ => Ok(()),
    }
}

/// Checks that an existing file of this name may be written. A link can be replaced, but is never followed;
/// directories, devices, sockets and pipes are refused.
fn writable(call: &WriteFile, present: Option<&Stat>) -> Result<(), Invalid> {
    match present.map(|file| FileType::from_raw_mode(file.st_mode)) {
        Some(FileType::Directory) => Err(unfit(call, "is a directory")),
        Some(FileType::Symlink) if call.append => {
            Err(unfit(call, "is a symbolic link; the agent does not append through links"))
        }
        None | Some(FileType::RegularFile | FileType::Symlink) => Ok(()),
        Some(_) => Err(unfit(call, "is not a regular file")),
    }
}

/// Returns the attributes of the new file. A file that it replaces keeps its owner, and its mode if the request
/// has none. `file` is that file if root alone determined its attributes; nothing is kept of any other file.
fn attributes(mode: Option<u32>, file: Option<&Stat>) -> FileAttributes {
    FileAttributes {
        mode: mode.or(file.map(|file| file.st_mode & MODE_BITS)).unwrap_or(DEFAULT_MODE),
        owner: file.map(|file| (file.st_uid, file.st_gid)),
    }
}

fn append(call: &WriteFile, location: &FileLocation) -> Result<(), WriteError> {
    let failed = |source| WriteError::Io { path: call.path.clone(), source };
    let mut file = location.open_to_append(call.mode.unwrap_or(DEFAULT_MODE)).map_err(failed)?;
    let stat = fstat(&file).map_err(|errno| failed(errno.into()))?;
    writable(call, Some(&stat))?;
    if !location.may_be_appended_to(&stat) {
        let reason = format!(
            "belongs to user {} and has {} hard links: the agent appends only to files of root that no \
             other user can have linked there; write it without `append`",
            stat.st_uid, stat.st_nlink
        );
        return Err(unfit(call, &reason).into());
    }
    if let Some(mode) = call.mode {
        // The mode above applies only to a new file, and the umask applies to it.
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    }
    file.write_all(call.content.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn call(path: &Path, content: &str) -> WriteFile {
        let path = path.to_str().unwrap().to_owned();
        WriteFile { path, content: content.to_owned(), mode: None, append: false }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & MODE_BITS
    }

    #[test]
    fn missing_parents_are_created_and_the_mode_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/key");
        let done = write(&WriteFile { mode: Some(0o600), ..call(&path, "secret") }).unwrap();
        assert_eq!(done.message, format!("wrote 6 bytes to {}", path.display()));
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("secret", 0o600));
        write(&call(&path, "other")).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("other", 0o600));
    }

    #[test]
    fn append_adds_to_the_file_and_a_plain_write_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for content in ["one\n", "two\n"] {
            write(&WriteFile { append: true, ..call(&path, content) }).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        write(&call(&path, "three\n")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file remains");
    }

    #[test]
    fn a_link_is_replaced_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "untouched").unwrap();
        symlink(&target, &link).unwrap();
        assert!(write(&WriteFile { append: true, ..call(&link, "x") }).is_err());
        write(&call(&link, "new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    }

    #[test]
    fn an_invalid_request_names_its_field() {
        let dir = tempfile::tempdir().unwrap();
        let field = |call: &WriteFile| match write(call).unwrap_err() {
            WriteError::Invalid(invalid) => invalid.field,
            other => panic!("{other:?}"),
        };
        for path in ["", "relative", "/", "/a/", "/a/..", "/a\0b", "/dev/null"] {
            assert_eq!(field(&call(Path::new(path), "")), "path", "{path:?}");
        }
        assert_eq!(field(&call(dir.path(), "")), "path");
        let odd = WriteFile { mode: Some(0o10000), ..call(&dir.path().join("f"), "") };
        assert_eq!(field(&odd), "mode");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_intact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let below = call(&path.join("child"), "new");
        assert!(matches!(write(&below), Err(WriteError::Io { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
