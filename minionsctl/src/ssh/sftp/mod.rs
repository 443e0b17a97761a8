//! The subsystem `sftp`: version 3 of the SSH File Transfer Protocol (draft-ietf-secsh-filexfer-02), served by a file
//! session in the guest.
//!
//! ```text
//!  client ─▶ PacketDecoder ─▶ SftpRequest ─▶ translation ─▶ SessionRequest ─▶ WebSocket ─▶ minionsd ─▶ agent
//!         ◀── reply ◀── pending replies, in order ◀── SessionAnswer ◀──────────────────────────────────
//! ```
//!
//! Requests are pipelined: each is sent on as soon as it arrives, and replies are sent in the order of the requests.
//!
//! * [`wire`]: numbers and strings of the protocol. [`packet_decoder`]: packets of a stream.
//! * [`request`]: requests. [`extension`]: requests that OpenSSH has added. [`attributes`]: metadata of a file.
//! * [`reply`]: replies. [`status`]: codes of failures. [`long_name`]: lines of `ls -l`.
//! * [`translation`]: a request as a request of a file session, or the reply to it.
//! * [`session_link`]: the file session. [`subsystem`]: both directions of a channel.
//!   [`error`]: failures that end the subsystem.

mod attributes;
mod error;
mod extension;
mod long_name;
mod packet_decoder;
mod reply;
mod request;
mod session_link;
mod status;
mod subsystem;
mod translation;
mod wire;

pub(super) use subsystem::{SFTP, SftpSubsystem};
