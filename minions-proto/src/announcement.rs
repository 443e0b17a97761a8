//! Announcement of an agent: the guest opens a connection to its host and sends one message.
//!
//! ```text
//!  guest                                        host
//!    │  connect to CID 2, port 1025               │  the VMM connects to <vm>.vsock_1025
//!    ├────────────────────────────────────────────▶
//!    │  one frame: {"type":"announce",…}          │
//!    ├────────────────────────────────────────────▶
//!    │  close                                     │  probes the agent; sends nothing
//! ```
//!
//! The message only says when a probe is worthwhile. A host must not rely on it: every guest, and every user who may
//! connect to the socket, can send any content.

use crate::frame::{EncodeError, PREFIX_LEN, encode};
use crate::json;
use crate::message::{BootId, InstanceId};
use crate::port::AgentPort;
use crate::version::PROTOCOL;
use serde::{Deserialize, Serialize};

/// VSOCK port of the host to which agents announce themselves.
pub const ANNOUNCE_PORT: u32 = 1025;

/// Longest announcement, in bytes after the length prefix. One of this version has at most 180.
pub const MAX_ANNOUNCEMENT_LEN: usize = 1024;

/// Value of `type`.
const TYPE: &str = "announce";

/// Announcement: an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// VSOCK port on which the agent listens.
    pub port: AgentPort,
    /// Protocol version of the agent.
    pub protocol: u32,
    /// Id of the guest's boot, as in the health reply.
    pub boot_id: BootId,
    /// Id of the agent's start, as in the health reply.
    pub instance_id: InstanceId,
}

/// Announcement as JSON.
#[derive(Serialize, Deserialize)]
struct AnnouncementFields<T> {
    r#type: T,
    port: u32,
    protocol: u32,
    boot_id: BootId,
    instance_id: InstanceId,
}

/// Reason why bytes are not an announcement.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAnnouncement {
    /// The length is 0, or above [`MAX_ANNOUNCEMENT_LEN`].
    #[error("{0} bytes: must be 1 to {MAX_ANNOUNCEMENT_LEN}")]
    Length(usize),
    /// The content is not the JSON of an announcement.
    #[error("not an announcement")]
    Json(#[from] serde_json::Error),
    /// `type` is not `announce`.
    #[error("`type` is not \"announce\"")]
    Type,
    /// `port` is not a VSOCK port.
    #[error("`port` is {0}: must be a VSOCK port, 1 to 4294967294")]
    Port(u32),
}

impl Announcement {
    /// Creates the announcement of an agent of this version.
    #[must_use]
    pub fn new(port: AgentPort, boot_id: BootId, instance_id: InstanceId) -> Self {
        Self { port, protocol: PROTOCOL, boot_id, instance_id }
    }

    /// Encodes the announcement as one frame.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if an id is longer than a frame.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        encode(&AnnouncementFields {
            r#type: TYPE,
            port: self.port.get(),
            protocol: self.protocol,
            boot_id: self.boot_id.clone(),
            instance_id: self.instance_id.clone(),
        })
    }

    /// Returns the length of the message that follows this prefix.
    ///
    /// # Errors
    ///
    /// [`InvalidAnnouncement::Length`]: nothing may be allocated for it.
    pub fn payload_len(prefix: [u8; PREFIX_LEN]) -> Result<usize, InvalidAnnouncement> {
        let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        let is_valid = (1..=MAX_ANNOUNCEMENT_LEN).contains(&len);
        if is_valid { Ok(len) } else { Err(InvalidAnnouncement::Length(len)) }
    }

    /// Decodes the message of a frame, without its prefix. Unknown fields are ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidAnnouncement`].
    pub fn decode(payload: &[u8]) -> Result<Self, InvalidAnnouncement> {
        if payload.is_empty() || payload.len() > MAX_ANNOUNCEMENT_LEN {
            return Err(InvalidAnnouncement::Length(payload.len()));
        }
        let fields: AnnouncementFields<String> = json::from_slice(payload)?;
        if fields.r#type != TYPE {
            return Err(InvalidAnnouncement::Type);
        }
        let port = AgentPort::try_from(i64::from(fields.port));
        Ok(Self {
            port: port.map_err(|_| InvalidAnnouncement::Port(fields.port))?,
            protocol: fields.protocol,
            boot_id: fields.boot_id,
            instance_id: fields.instance_id,
        })
    }
}
