//! Requests to the kernel and their replies.

use super::{u16_at, u32_at};
use crate::watched::watch;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{bind, recv, recvfrom, send, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::task::coop::consume_budget;

/// Length of the header of a message, `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

/// Alignment of messages in a datagram.
const ALIGNMENT: usize = 4;

/// Size of the buffer for a datagram: the kernel makes the parts of a list as large as the largest buffer that it was given,
/// up to this size.
const BUFFER_LEN: usize = 32 << 10;

/// Most attempts to read a list that changes while the kernel writes it.
const MAX_DUMPS: u32 = 8;

/// Port of the kernel.
const KERNEL: u32 = 0;

/// Flag of a message whose list has changed, `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;

/// Types of messages without a body of their own, `NLMSG_…` of linux/netlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The first type that is not reserved, `NLMSG_MIN_TYPE`.
const FIRST_KIND: u16 = 16;

/// Flags of a request, `NLM_F_…` of linux/netlink.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestFlags(u16);

impl RequestFlags {
    /// All objects: the reply ends with `DONE`.
    pub(crate) const DUMP: Self = Self(Self::REQUEST | 0x300);
    /// A single object, or a change of an existing one. As in all others, the reply ends with an acknowledgement.
    pub(crate) const ONE: Self = Self(Self::REQUEST | Self::ACK);
    /// An object that replaces the one with the same key, or is created.
    pub(crate) const REPLACE: Self = Self(Self::REQUEST | Self::ACK | Self::CREATE | 0x100);
    /// An object that is added to those with the same key.
    pub(crate) const APPEND: Self = Self(Self::REQUEST | Self::ACK | Self::CREATE | 0x800);

    const REQUEST: u16 = 0x1;
    const ACK: u16 = 0x4;
    const CREATE: u16 = 0x400;
}

/// Socket for requests. Requests of several tasks are made in turns.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    socket: AsyncFd<OwnedFd>,
    /// Number of the last request. Locked during an exchange.
    sequence: Mutex<u32>,
}

impl NetlinkSocket {
    /// Opens a socket.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // `NETLINK_ROUTE` is zero, the default.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket: watch(socket)?, sequence: Mutex::new(0) })
    }

    /// Sends a request, and returns the bodies of the messages of the reply. A list that changes meanwhile is read again.
    ///
    /// If the future is dropped, the request may have been carried out; the next request skips its replies. After a dropped
    /// request for a list, the socket must be dropped too: the kernel refuses the next list (EBUSY).
    ///
    /// # Errors
    ///
    /// Those of the kernel, and `Interrupted` for a list that changes all the time.
    pub(crate) async fn request(
        &self,
        kind: u16,
        flags: RequestFlags,
        body: &[u8],
    ) -> io::Result<Vec<Vec<u8>>> {
        let mut sequence = self.sequence.lock().await;
        let mut buffer = vec![0; BUFFER_LEN];
        for _ in 0..MAX_DUMPS {
            *sequence = sequence.wrapping_add(1);
            send(&self.socket, &encode(kind, flags, *sequence, body)?, SendFlags::empty())?;
            let mut reply = NetlinkReply::default();
            while !reply.is_complete {
                let len = self.receive(&mut buffer).await?;
                reply.read(&buffer[..len], *sequence)?;
            }
            if !reply.is_interrupted {
                return Ok(reply.bodies);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Receives a datagram of the kernel into the buffer, which grows if necessary, and returns its length. The kernel has
    /// the reply ready when the request was sent, so this waits only rarely; a long list must not keep other tasks waiting.
    async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        consume_budget().await;
        loop {
            match self.receive_now(buffer) {
                Err(Errno::AGAIN) => self.socket.readable().await?.clear_ready(),
                Err(Errno::INTR) | Ok(None) => {}
                Ok(Some(len)) => return Ok(len),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a datagram. Returns `None` for that of another process, which may send to this socket.
    fn receive_now(&self, buffer: &mut Vec<u8>) -> Result<Option<usize>, Errno> {
        let (_, len) = recv(&self.socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::TRUNC)?;
        buffer.resize(buffer.len().max(len), 0);
        let (len, _, sender) = recvfrom(&self.socket, &mut buffer[..], RecvFlags::empty())?;
        let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
        Ok(sender.is_some_and(|sender| sender.pid() == KERNEL).then_some(len))
    }
}

/// Encodes a request.
fn encode(kind: u16, flags: RequestFlags, sequence: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let len = u32::try_from(HEADER_LEN + body.len()).map_err(io::Error::other)?;
    let mut message = len.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.0.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    // Port of the sender, which the kernel knows.
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(body);
    Ok(message)
}

/// Reply to a request.
#[derive(Debug, Default)]
struct NetlinkReply {
    bodies: Vec<Vec<u8>>,
    is_complete: bool,
    /// True if the list has changed while the kernel wrote it, so that something may be missing.
    is_interrupted: bool,
}

impl NetlinkReply {
    /// Reads the messages of a datagram that belong to the request, and appends their bodies.
    ///
    /// # Errors
    ///
    /// The kernel's error, and `InvalidData` for an impossible length.
    fn read(&mut self, mut datagram: &[u8], sequence: u32) -> io::Result<()> {
        while let Some(kind) = u16_at(datagram, 4) {
            let len = u32_at(datagram, 0).and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
            let body = datagram.get(HEADER_LEN..len).ok_or(io::ErrorKind::InvalidData)?;
            let flags = u16_at(datagram, 6).unwrap_or_default();
            let is_reply = u32_at(datagram, 8) == Some(sequence);
            datagram = datagram.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
            if !is_reply {
                continue;
            }
            self.is_interrupted |= flags & INTERRUPTED != 0;
            match kind {
                ERROR | DONE => {
                    self.is_complete = true;
                    return result_of(body);
                }
                FIRST_KIND.. => self.bodies.push(body.to_vec()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the result in the body of `ERROR` or `DONE`: zero, or a negative error number.
fn result_of(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
}

#[cfg(test)]
mod tests {
    use super::super::link::{self, LinkMessage};
    use super::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        encode(kind, RequestFlags(0), sequence, body).unwrap()
    }

    fn read(datagram: &[u8]) -> (io::Result<()>, NetlinkReply) {
        let mut reply = NetlinkReply::default();
        (reply.read(datagram, 7), reply)
    }

    #[test]
    fn replies_to_other_requests_are_skipped() {
        let datagram =
            [message(16, 6, &[1; 4]), message(16, 7, &[2; 4]), message(ERROR, 6, &[3; 4])];
        let (result, reply) = read(&datagram.concat());
        result.unwrap();
        assert_eq!((reply.is_complete, reply.bodies), (false, vec![vec![2; 4]]));
    }

    #[test]
    fn a_reply_ends_with_an_acknowledgement_or_with_the_kernels_error() {
        let (result, reply) = read(&message(DONE, 7, &[0; 4]));
        result.unwrap();
        assert!(reply.is_complete && !reply.is_interrupted);
        let (result, _) = read(&message(ERROR, 7, &(-19_i32).to_ne_bytes()));
        assert_eq!(result.unwrap_err().raw_os_error(), Some(19));
    }

    #[test]
    fn a_list_that_has_changed_meanwhile_is_known_by_any_of_its_messages() {
        let changed = |kind| encode(kind, RequestFlags(INTERRUPTED), 7, &[0; 4]).unwrap();
        for datagram in
            [[changed(16), message(DONE, 7, &[0; 4])], [message(16, 7, &[0; 4]), changed(DONE)]]
        {
            let (result, reply) = read(&datagram.concat());
            result.unwrap();
            assert!(reply.is_complete && reply.is_interrupted);
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        let mut datagram = message(16, 7, &[0; 4]);
        for len in [15_u32, 21, u32::MAX] {
            datagram[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(read(&datagram).0.unwrap_err().kind(), io::ErrorKind::InvalidData, "{len}");
        }
    }

    #[tokio::test]
    async fn requests_at_the_same_time_get_their_own_replies() {
        let socket = NetlinkSocket::open().unwrap();
        let (all, none) = (LinkMessage::request_all(), LinkMessage::of(u32::MAX / 2).emit());
        for _ in 0..8 {
            let (dumped, refused) = tokio::join!(
                socket.request(link::GET, RequestFlags::DUMP, &all),
                socket.request(link::GET, RequestFlags::ONE, &none),
            );
            let dumped = dumped.unwrap();
            let names: Vec<_> =
                dumped.iter().filter_map(|body| LinkMessage::parse(body)?.name()).collect();
            assert!(names.contains(&"lo".to_owned()), "{names:?}");
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(Errno::NODEV.raw_os_error()));
        }
    }

    #[tokio::test]
    async fn the_replies_to_a_request_that_was_dropped_are_skipped() {
        let socket = NetlinkSocket::open().unwrap();
        // Its replies stay in the socket, as after a drop between sending and receiving.
        let dropped =
            encode(link::GET, RequestFlags::DUMP, 0, &LinkMessage::request_all()).unwrap();
        send(&socket.socket, &dropped, SendFlags::empty()).unwrap();
        let loopback = LinkMessage::of(1).emit();
        let found = socket.request(link::GET, RequestFlags::ONE, &loopback).await.unwrap();
        assert_eq!(LinkMessage::parse(&found[0]).unwrap().name().as_deref(), Some("lo"));
        assert_eq!(found.len(), 1);
    }
}
