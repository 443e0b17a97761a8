//! Places of settings: layers, variables, and the directory of the user.

use crate::contexts::ContextError;
use std::env;
use std::path::PathBuf;

/// Settings from one place. Each overrides that of later layers.
#[derive(Debug, Default)]
pub(super) struct SettingsLayer {
    pub(super) host: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
}

/// Returns the value of a variable. An empty variable counts as not set.
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the directory of the user's settings, below `$XDG_CONFIG_HOME` or `~/.config` (XDG Base Directory).
pub(super) fn user_directory() -> Option<PathBuf> {
    let base = env::var_os("XDG_CONFIG_HOME")
        .filter(|base| !base.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")))?;
    Some(base.join("minions"))
}

/// Returns the path of the user's contexts.
pub(crate) fn contexts_file() -> Result<PathBuf, ContextError> {
    let directory = user_directory().ok_or(ContextError::NoDirectory)?;
    Ok(directory.join("contexts.toml"))
}
