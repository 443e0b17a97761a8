//! Places of settings: layers, variables, and the directory of the user.

use crate::contexts::ContextError;
use crate::failure::Failure;
use rustix::process::geteuid;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, io};

/// Settings from one place. Each overrides that of later layers.
#[derive(Debug, Default)]
pub(super) struct SettingsLayer {
    pub(super) host: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
}

/// Returns the value of a variable. An empty variable counts as not set.
///
/// # Errors
///
/// The value is not UTF-8. To ignore it would select another host or context.
pub(super) fn variable(name: &'static str) -> Result<Option<String>, Failure> {
    let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.into_string().map(Some).map_err(|_| Failure::NotText(name))
}

/// Returns the path in a variable. An empty variable counts as not set.
pub(super) fn path_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Reports whether a file of settings cannot be read because it is in the directory of another user, as after `su` without
/// `-`. A file in the user's own directory is never skipped: its host and token would be replaced by others.
pub(super) fn is_of_another_user(path: &Path, error: &io::Error) -> bool {
    let own = || path.parent()?.metadata().ok();
    error.kind() == io::ErrorKind::PermissionDenied
        && own().is_none_or(|directory| directory.uid() != geteuid().as_raw())
}

/// Returns the directory of the user's settings, below `$XDG_CONFIG_HOME` or `~/.config` (XDG Base Directory).
pub(super) fn user_directory() -> Option<PathBuf> {
    // Relative paths are invalid (XDG Base Directory), and would lead to files of other users, for example in /tmp.
    let absolute = |name| path_variable(name).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("minions"))
}

/// Returns the path of the user's contexts.
pub(crate) fn contexts_file() -> Result<PathBuf, ContextError> {
    let directory = user_directory().ok_or(ContextError::NoDirectory)?;
    Ok(directory.join("contexts.toml"))
}
