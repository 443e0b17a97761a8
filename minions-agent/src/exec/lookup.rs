//! Lookup of a command's program file.
//!
//! The agent does not leave this to `execvp`, which runs a file without `#!` in a shell. Its error number ENOENT also
//! does not tell a missing program from a missing interpreter or dynamic loader.

use super::error::ExecError;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Search path for an agent that was started without a `PATH`.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the files that `command` can mean, in the order in which they are tried. A path (relative to `cwd`,
/// where the program starts) means one file, a name means a file in each directory of `path`.
pub(super) fn candidates(command: &str, path: &OsStr, cwd: &Path) -> Vec<PathBuf> {
    if command.contains('/') {
        return vec![cwd.join(command)];
    }
    let directories = path.as_bytes().split(|byte| *byte == b':');
    directories.map(|dir| cwd.join(OsStr::from_bytes(dir)).join(command)).collect()
}

/// Finds the program for `command` among its [`candidates`], as the agent's own user.
pub(super) fn find(command: &str, path: &OsStr, cwd: &Path) -> Result<PathBuf, ExecError> {
    let not_found = || ExecError::NotFound { command: command.to_owned() };
    let candidates = candidates(command, path, cwd);
    if command.contains('/') {
        let program = candidates.into_iter().next().unwrap_or_default();
        return match executable(&program) {
            Ok(()) => Ok(program),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(not_found()),
            Err(errno) => Err(not_executable(&program, errno)),
        };
    }
    let mut refused = None;
    for program in candidates {
        match executable(&program) {
            Ok(()) => return Ok(program),
            Err(Errno::ACCESS) => refused = Some(not_executable(&program, Errno::ACCESS)),
            // As in a shell, the program may still be in the next directory.
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(not_found))
}

fn not_executable(program: &Path, errno: Errno) -> ExecError {
    ExecError::NotExecutable { path: program.display().to_string(), source: errno }
}

/// Checks that this is a file, and that its permissions let the agent's user execute it.
fn executable(program: &Path) -> Result<(), Errno> {
    let metadata =
        fs::metadata(program).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if metadata.is_file() { access(program, Access::EXEC_OK) } else { Err(Errno::ACCESS) }
}

/// Returns, for an error message, the file that is missing if executing an existing program fails with ENOENT.
pub(super) fn missing_interpreter(program: &Path) -> String {
    let start = read_start(program).unwrap_or_default();
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.strip_prefix(b"#!") {
        Some(line) => {
            let line = String::from_utf8_lossy(line);
            format!("the interpreter {:?}", line.split_whitespace().next().unwrap_or_default())
        }
        None => "the dynamic loader that it names".to_owned(),
    }
}

/// Reads the first 256 bytes, which is as far as the kernel looks for a `#!` line.
fn read_start(program: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(program)?, 256), &mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(command: &str, path: &str) -> Result<PathBuf, ExecError> {
        super::find(command, OsStr::new(path), Path::new("/"))
    }

    #[test]
    fn a_name_is_looked_up_and_a_path_is_not() {
        assert!(find("sh", "/nowhere:/bin").unwrap().ends_with("bin/sh"));
        assert_eq!(find("/bin/sh", "").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("bin/sh", "").unwrap(), Path::new("/bin/sh"));
        assert!(matches!(find("sh", "/nowhere"), Err(ExecError::NotFound { .. })));
    }

    #[test]
    fn directories_and_files_without_execute_permission_are_not_executable() {
        for command in ["/etc", "/etc/passwd"] {
            let found = find(command, "/bin");
            assert!(matches!(found, Err(ExecError::NotExecutable { .. })), "{found:?}");
        }
        let found = find("passwd", "/etc");
        assert!(matches!(found, Err(ExecError::NotExecutable { .. })), "{found:?}");
    }
}
