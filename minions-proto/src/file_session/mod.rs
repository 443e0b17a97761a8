//! Messages of a file session, the operation `session` of `file_start`: the host sends requests on
//! channel 0, the agent answers them in the same order on channel 1.
//!
//! ```text
//!  0               4                    8              8 + head length     4 + length
//!  ├───────────────┼────────────────────┼──────────────┼───────────────────┤
//!  │ length u32 BE │ head length u32 BE │ head (JSON)  │ data              │
//!  └───────────────┴────────────────────┴──────────────┴───────────────────┘
//!                    1 ..= MAX_HEAD_LEN                  0 ..= MAX_DATA_LEN
//! ```
//!
//! `length` counts everything after itself: the *content* of the frame. A WebSocket message of the
//! daemon is the content of one frame, or empty as a sign of life.

mod answer;
mod frame;
mod request;

pub use answer::{
    FilesystemSpace, SessionAnswer, SessionEntry, SessionMetadata, SessionPath, SessionResult,
};
pub use frame::{
    MAX_CONTENT_LEN, MAX_DATA_LEN, MAX_HEAD_LEN, SessionDecoder, SessionFrameError, SessionMessage,
};
pub use request::{
    AttributeChange, LinkFile, MakeSessionDirectory, OpenDirectory, OpenFile, PathRequest, ReadAt,
    RenameEntry, SessionHandle, SessionOperation, SessionRequest, SetAttributes,
    SetHandleAttributes, StatPath, SymlinkFile, WriteAt,
};

/// Largest number of open handles of one session.
pub const MAX_HANDLES: usize = 256;

#[cfg(test)]
mod tests;
