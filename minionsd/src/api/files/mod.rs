//! `/vms/{vm}/files`: files and directories of a guest.
//!
//! * [`call`]: a call that concerns a file. [`failure`]: conversion of failures to problems.
//! * [`read`]: `GET` and `HEAD`, a file or a tree. [`range`]: parts of a file. [`headers`]: the metadata of a file in
//!   response headers.
//! * [`write`]: `PUT`, a file or a tree.
//! * [`manage`]: `DELETE`, and `POST …/mkdir` and `…/move`.
//! * [`session`]: `GET …/session`, many requests over a WebSocket. [`session_pump`]: its messages.
//! * [`list`]: `GET …/list`. [`watch`]: `GET …/watch`. [`lines`]: JSON lines of an operation.

mod call;
mod failure;
mod headers;
mod lines;
pub(super) mod list;
pub(super) mod manage;
mod range;
pub(super) mod read;
pub(super) mod session;
mod session_pump;
pub(super) mod watch;
pub(super) mod write;

pub(super) use headers::{EXEC_ID, FILE_INFO};
