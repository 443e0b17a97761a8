//! `file_start`: one operation on files of the guest (feature `files`).
//!
//! The agent runs each operation as a program of its own, an exec, under the requested user. The
//! reply is that of `exec_start`, and the connection is then in [channel mode](crate::channel):
//! standard output carries a [`FileHeader`](crate::file_stream::FileHeader) line and the data,
//! standard error carries [`FileFailure`](crate::file_stream::FileFailure) lines, and the exit
//! status is 0 or 1. All requests about execs apply to it.

mod operation;
mod path;

pub use operation::{
    FileOperation, ListDirectory, MakeDirectory, PackTree, ReadFile, RemoveFile, RenameFile,
    ServeSession, StatFile, UnpackTree, WatchTree, WriteStream,
};
pub use path::{GuestPath, GuestTarget, MAX_PATH_LEN};
pub(crate) use path::{decoded as decoded_name, encoded as encoded_name};

use super::call::Call;
use super::exec_id::ExecId;
use super::exec_stream::{ExecAttached, OnDisconnect, within_reattach_grace};
use crate::error::Invalid;
use operation::check_account;
use serde::{Deserialize, Serialize};

/// Request to start an operation on files, or to attach to the exec that already has this id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStart {
    /// Id of the exec. Absent: the agent generates one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ExecId>,
    /// User whose rights apply, as in [`ExecStart::user`](super::ExecStart::user).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Behaviour when the client leaves.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
    /// Time for a client to re-attach, as in [`ExecStart::reattach_grace_ms`](super::ExecStart::reattach_grace_ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reattach_grace_ms: Option<u64>,
    /// Operation.
    pub op: FileOperation,
}

impl FileStart {
    /// Checks for values that no guest accepts.
    ///
    /// # Errors
    ///
    /// The first invalid field, and the reason.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Some(user) = &self.user {
            check_account("user", user)?;
        }
        within_reattach_grace(self.reattach_grace_ms)?;
        self.op.validate()
    }
}

impl Call for FileStart {
    type Reply = ExecAttached;
    const TYPE: &'static str = "file_start";
    /// Only a request with an id can be repeated.
    const IDEMPOTENT: bool = false;
}

#[cfg(test)]
mod tests;
