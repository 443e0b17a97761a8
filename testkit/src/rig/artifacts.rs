//! All parts that a VM is booted from, checked to exist.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::error::RigError;
use super::layout::{GUEST_MODULES, Layout};

/// Parts of a VM that were checked to exist.
#[derive(Debug, Clone)]
pub struct Artifacts {
    pub(crate) qemu: PathBuf,
    pub(crate) setpriv: PathBuf,
    pub(crate) vsock_backend: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// Checked only when a VM has a disk, because the demo's has none.
    pub(crate) disk_initrd: PathBuf,
}

impl Artifacts {
    /// Finds the parts in the rig directory that the environment names ([`Layout::from_env`]) and
    /// the programs in `PATH`.
    ///
    /// # Errors
    ///
    /// [`RigError::MissingFile`] or [`RigError::MissingProgram`] for the first missing part; the message says
    /// which command to run.
    pub fn locate() -> Result<Self, RigError> {
        Self::locate_in(&Layout::from_env(), &std::env::var_os("PATH").unwrap_or_default())
    }

    /// Like [`Artifacts::locate`], with the rig directory and the search path given.
    ///
    /// # Errors
    ///
    /// As [`Artifacts::locate`].
    pub fn locate_in(layout: &Layout, search_path: &OsStr) -> Result<Self, RigError> {
        // The modules and the agent are already inside the initial ramdisk; their presence shows that the
        // setup is complete.
        for module in GUEST_MODULES {
            file(format!("kernel module {module}"), &layout.module(module))?;
        }
        file("agent", &layout.agent())?;
        Ok(Self {
            qemu: program("qemu-system-x86_64", search_path)?,
            setpriv: program("setpriv", search_path)?,
            vsock_backend: file("vsock backend vhost-device-vsock", &layout.vsock_backend())?,
            kernel: file("kernel image", &layout.kernel())?,
            initrd: file("initial ramdisk", &layout.initrd())?,
            disk_initrd: layout.disk_initrd(),
        })
    }
}

/// Returns the path of the Debian image, which must be copied before use.
///
/// # Errors
///
/// [`RigError::MissingFile`] if the setup of the tests has not run.
pub fn debian(layout: &Layout) -> Result<PathBuf, RigError> {
    file("disk's initial ramdisk", &layout.disk_initrd())?;
    file("Debian image", &layout.debian())
}

fn file(part: impl Into<String>, path: &Path) -> Result<PathBuf, RigError> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    Err(RigError::MissingFile { part: part.into(), path: path.to_owned() })
}

fn program(name: &str, search_path: &OsStr) -> Result<PathBuf, RigError> {
    std::env::split_paths(search_path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| RigError::MissingProgram { program: name.to_owned() })
}
