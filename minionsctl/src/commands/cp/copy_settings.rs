//! Settings of a copy: the attributes that are kept in each direction.

use crate::cli::CopyArgs;
use crate::client::PutOptions;
use minions_tree::XattrChoice;
use minions_tree::pack::PackOptions;
use minions_tree::rename::RenameOptions;
use minions_tree::unpack::{DeviceChoice, UnpackOptions};
use rustix::process::geteuid;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Umask if `/proc` cannot be read.
const DEFAULT_UMASK: u32 = 0o022;

/// Form of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyForm {
    /// The contents and permission bits of regular files.
    Files,
    /// Trees (`-r`).
    Trees,
    /// Trees with everything that can be kept (`-a`).
    Archive,
}

/// Settings of all copies of a command.
#[derive(Debug, Clone)]
pub(super) struct CopySettings {
    pub(super) form: CopyForm,
    set_id: bool,
    pub(super) user: Option<String>,
    pub(super) mode: Option<u32>,
    /// Permission bits that files on this host do not get without `-a`.
    umask: u32,
}

impl CopySettings {
    pub(super) fn of(args: &CopyArgs) -> Self {
        let form = match (args.archive, args.recursive) {
            (true, _) => CopyForm::Archive,
            (false, true) => CopyForm::Trees,
            (false, false) => CopyForm::Files,
        };
        Self { form, set_id: args.set_id, user: args.user.clone(), mode: args.mode, umask: umask() }
    }

    fn is_archive(&self) -> bool {
        self.form == CopyForm::Archive
    }

    /// Reports whether extended attributes are copied.
    pub(super) fn xattrs(&self) -> bool {
        self.is_archive()
    }

    fn xattr_choice(&self) -> XattrChoice {
        match (self.is_archive(), self.set_id) {
            (false, _) => XattrChoice::None,
            (true, false) => XattrChoice::Ordinary,
            (true, true) => XattrChoice::WithCapabilities,
        }
    }

    /// Returns the attributes of a tree that is sent.
    pub(super) fn pack(&self) -> PackOptions {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(0);
        PackOptions {
            xattrs: self.xattr_choice(),
            devices: false,
            mtime: (!self.is_archive()).then_some(now),
        }
    }

    /// Returns the attributes of files that are created on this host.
    pub(super) fn unpack(&self) -> UnpackOptions {
        UnpackOptions {
            times: self.is_archive(),
            owners: self.is_archive() && geteuid().is_root(),
            set_id: self.set_id,
            xattrs: self.xattr_choice(),
            devices: DeviceChoice::LeaveOut,
            mask: if self.is_archive() { 0 } else { self.umask },
        }
    }

    /// Returns the attributes of the members of a stream that passes through this process; `mtime` replaces their times.
    pub(super) fn rename(&self, mtime: Option<i64>) -> RenameOptions {
        RenameOptions { mtime, set_id: self.set_id, xattrs: self.xattr_choice() }
    }

    /// Returns the permission bits of a regular file on this host whose source has these.
    pub(super) fn local_mode(&self, source: u32) -> u32 {
        self.mode.unwrap_or(source & 0o777 & !self.umask)
    }

    /// Returns the attributes of files that are created in a guest.
    pub(super) fn put(&self, parents: bool) -> PutOptions {
        let user = self.user.as_deref().map(|user| user.split(':').next().unwrap_or(user));
        PutOptions {
            user: self.user.clone(),
            parents,
            mode: self.mode,
            xattrs: self.xattrs(),
            owners: self.is_archive() && matches!(user, None | Some("root" | "0")),
            set_id: self.set_id,
        }
    }
}

/// Returns the umask of this process. The system call would change it, for all threads.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(DEFAULT_UMASK)
}
