//! Installs the options into the user's configuration of ssh.
//!
//! The options are in a file of their own, `~/.ssh/minions.conf`, which the first line of `~/.ssh/config` includes:
//! ssh uses the first value that it finds for an option, and an included file does not change the hosts to which the
//! following lines apply.

use super::host_key::replace;
use crate::bounded_file::{self, MAX_SETTINGS};
use crate::ssh_error::SshError;
use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

const INCLUDED_FILE: &str = "minions.conf";
const CONFIG_FILE: &str = "config";
const INCLUDE: &str = "Include minions.conf\n";

/// Writes `block` to `~/.ssh/minions.conf`, includes the file in `~/.ssh/config`, and returns its path.
pub(crate) fn install(block: &str) -> Result<PathBuf, SshError> {
    let home = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    install_in(&home.ok_or(SshError::NoHome)?.join(".ssh"), block)
}

fn install_in(directory: &Path, block: &str) -> Result<PathBuf, SshError> {
    let failed = |path: &Path, source| SshError::Write { path: path.to_owned(), source };
    let created = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    created.map_err(|source| failed(directory, source))?;
    let included = directory.join(INCLUDED_FILE);
    replace(&included, block.as_bytes())?;
    let config = directory.join(CONFIG_FILE);
    let before = match bounded_file::read(&config, MAX_SETTINGS) {
        Ok(before) => before,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(failed(&config, source)),
    };
    if before.split(|byte| *byte == b'\n').any(|line| line == INCLUDE.trim_end().as_bytes()) {
        return Ok(included);
    }
    // The file may be a symbolic link into a repository of the user's settings.
    let path = fs::canonicalize(&config).unwrap_or(config);
    let mode = fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o777);
    replace(&path, &[INCLUDE.as_bytes(), &before].concat())?;
    if let Ok(mode) = mode {
        let changed = fs::set_permissions(&path, Permissions::from_mode(mode));
        changed.map_err(|source| failed(&path, source))?;
    }
    Ok(included)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::tempdir;

    #[test]
    fn the_options_are_included_once_and_other_settings_are_kept() {
        let dir = tempdir().unwrap();
        let (ssh, elsewhere) = (dir.path().join(".ssh"), dir.path().join("dotfiles"));
        fs::create_dir(&ssh).unwrap();
        fs::write(&elsewhere, "Compression yes\nHost a\n  Port 22\n").unwrap();
        fs::set_permissions(&elsewhere, Permissions::from_mode(0o644)).unwrap();
        symlink(&elsewhere, ssh.join("config")).unwrap();
        for block in ["Host old\n", "Host new\n"] {
            let path = install_in(&ssh, block).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), block);
        }
        let config = fs::read_to_string(&elsewhere).unwrap();
        assert_eq!(config, "Include minions.conf\nCompression yes\nHost a\n  Port 22\n");
        assert!(fs::symlink_metadata(ssh.join("config")).unwrap().is_symlink());
        let mode = fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode, fs::read_dir(&ssh).unwrap().count()), (0o644, 2));
    }

    #[test]
    fn a_missing_configuration_is_created() {
        let dir = tempdir().unwrap();
        install_in(&dir.path().join(".ssh"), "Host x\n").unwrap();
        let config = fs::read_to_string(dir.path().join(".ssh/config")).unwrap();
        assert_eq!(config, "Include minions.conf\n");
    }
}
