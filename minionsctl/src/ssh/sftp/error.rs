//! The error type of the subsystem.

use super::packet_decoder::PacketLength;
use super::wire::ShortPacket;
use crate::link_error::LinkError;
use minions_proto::file_session::SessionFrameError;

/// Failure that ends the subsystem.
#[derive(Debug, thiserror::Error)]
pub(super) enum SftpError {
    /// The client sent a packet of an invalid length.
    #[error("the SFTP client sent {0}")]
    PacketLength(#[from] PacketLength),
    /// The client sent a packet without the id of a request.
    #[error("the SFTP client sent a malformed packet")]
    Packet(#[from] ShortPacket),
    /// The connection to minionsd was lost.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The guest sent a malformed answer.
    #[error("the guest sent a malformed answer")]
    Answer(#[from] SessionFrameError),
    /// The guest sent an answer that does not match its request.
    #[error("the guest sent an answer that does not match its request")]
    Mismatch,
    /// The client has left.
    #[error("the SFTP client has left")]
    ClientLeft,
}
