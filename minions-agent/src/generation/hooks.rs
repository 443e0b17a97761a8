//! Programs of the guest in `/etc/minions/restore.d`, in the order of their names, by the rules of run-parts(8).

use super::steps::StepResult;
use super::tool;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Directory of the hooks, below `/etc`.
pub(super) const DIRECTORY: &str = "minions/restore.d";

/// Limit of hooks. More are an error, because none is left out silently.
const MAX_HOOKS: usize = 32;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run.
#[derive(Debug)]
pub(super) struct RestoreHook {
    name: String,
    path: PathBuf,
}

/// Returns the hooks in a directory; none if it does not exist.
///
/// Names consist of letters, digits, `-` and `_`, so that `10-app.dpkg-old` is not run. Files that are not executable
/// are left out.
///
/// # Errors
///
/// The directory cannot be read; other users can write to it or to a hook; there are too many hooks.
pub(super) fn list(dir: &Path) -> Result<Vec<RestoreHook>, String> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", dir.display())),
    };
    check_writers(dir, &fs::metadata(dir).map_err(|error| error.to_string())?)?;
    let mut hooks = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            continue;
        }
        let path = entry.path();
        // A broken link is no program.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
            continue;
        }
        check_writers(&path, &metadata)?;
        hooks.push(RestoreHook { name, path });
        if hooks.len() > MAX_HOOKS {
            return Err(format!("{} has more than {MAX_HOOKS} hooks", dir.display()));
        }
    }
    hooks.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(hooks)
}

/// Checks that only root, or the agent's own user, can change what the agent runs.
fn check_writers(path: &Path, metadata: &fs::Metadata) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    let is_trusted = metadata.uid() == 0 || metadata.uid() == own;
    if is_trusted && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(format!("other users can write to {path}: make it root's, with `chmod go-w {path}`"))
}

impl RestoreHook {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs the hook in `/`. Blocks.
    pub(super) fn run(&self, variables: &[(&str, String)], limit: Duration) -> StepResult {
        let mut command = Command::new(&self.path);
        command.current_dir("/").envs(variables.iter().map(|(name, value)| (name, value)));
        if std::env::var_os("PATH").is_none() {
            command.env("PATH", DEFAULT_PATH);
        }
        tool::run(&mut command, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn write(dir: &Path, name: &str, mode: u32) {
        let path = dir.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        dir
    }

    #[test]
    fn only_programs_with_plain_names_are_run_in_their_order() {
        let dir = dir();
        for name in ["20-last", "10-first", "10-first.dpkg-old", "a~", "README.txt"] {
            write(dir.path(), name, 0o755);
        }
        write(dir.path(), "15-no-program", 0o644);
        fs::create_dir(dir.path().join("directory")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("broken")).unwrap();
        let hooks = list(dir.path()).unwrap();
        assert_eq!(
            hooks.iter().map(RestoreHook::name).collect::<Vec<_>>(),
            ["10-first", "20-last"]
        );
        assert!(list(&dir.path().join("missing")).unwrap().is_empty());
    }

    #[test]
    fn a_hook_that_other_users_can_change_is_refused() {
        let dir = dir();
        write(dir.path(), "10-open", 0o775);
        let error = list(dir.path()).unwrap_err();
        assert!(error.contains("10-open") && error.contains("chmod go-w"), "{error}");
        let open = self::dir();
        fs::set_permissions(open.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(list(open.path()).unwrap_err().contains("other users can write"));
    }

    #[test]
    fn more_hooks_than_the_limit_are_an_error() {
        let dir = dir();
        (0..=MAX_HOOKS).for_each(|number| write(dir.path(), &format!("h{number}"), 0o755));
        assert!(list(dir.path()).unwrap_err().contains("more than 32 hooks"));
    }
}
