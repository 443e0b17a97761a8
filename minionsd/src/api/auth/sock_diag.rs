//! Owner of a loopback TCP connection, looked up by its four-tuple with `sock_diag(7)`.
//!
//! The kernel keeps connections after their process has closed them (TIME_WAIT, FIN_WAIT, and sockets without a file),
//! and reports uid 0 for some of them. Only an ESTABLISHED socket that still belongs to a file counts; any other
//! connection has no owner.
//!
//! A client can also vanish, and another process can reuse its port. Therefore the daemon's own end is looked up
//! afterwards in the same way: if it is still the accepted socket, and ESTABLISHED, no other connection had this
//! four-tuple in between.

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};
use std::io;
use std::net::SocketAddr;

/// `INET_DIAG_NOCOOKIE`: matches any socket with this four-tuple.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// Buffer size for the answer, which has 72 bytes: no attributes are requested.
const ANSWER_LEN: usize = 4096;

/// `recv` flag to return at once: the kernel queues the answer before `send` returns.
const MSG_DONTWAIT: i32 = 0x40;

/// Socket at one end of an established connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketOwnership {
    uid: u32,
    inode: u32,
}

/// Returns the uid of the process that holds the `client` end of the connection to `server`, or `None` if no process
/// does. `inode` is the inode of the daemon's own end.
pub(super) fn uid_of(
    client: SocketAddr,
    server: SocketAddr,
    inode: u64,
) -> io::Result<Option<u32>> {
    let Some(theirs) = look_up(client, server)? else { return Ok(None) };
    let ours = look_up(server, client)?;
    let same = ours.is_some_and(|ours| u64::from(ours.inode) == inode);
    Ok(same.then_some(theirs.uid))
}

/// Looks up the socket at `local` that is connected to `remote`.
fn look_up(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketOwnership>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    socket.send(&request(local, remote), 0)?;
    let mut buffer = vec![0; ANSWER_LEN];
    let len = socket.recv(&mut buffer.as_mut_slice(), MSG_DONTWAIT)?;
    let bytes = buffer.get(..len).unwrap_or_default();
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(match answer.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
            established(&response.header, local, remote)
        }
        // ENOENT: no such socket.
        _ => None,
    })
}

/// Returns the socket if it is the requested connection and ESTABLISHED. The check is required, because the kernel's
/// lookup falls back to listening sockets.
fn established(
    found: &InetResponseHeader,
    local: SocketAddr,
    remote: SocketAddr,
) -> Option<SocketOwnership> {
    let id = &found.socket_id;
    let matches = (id.source_port, id.source_address.to_canonical())
        == (local.port(), local.ip().to_canonical())
        && (id.destination_port, id.destination_address.to_canonical())
            == (remote.port(), remote.ip().to_canonical());
    let end = SocketOwnership { uid: found.uid, inode: found.inode };
    (matches && found.state == TCP_ESTABLISHED && found.inode != 0).then_some(end)
}

fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let (local_ip, remote_ip) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let socket_id = SocketId {
        source_port: local.port(),
        destination_port: remote.port(),
        source_address: local_ip,
        destination_address: remote_ip,
        interface_id: 0,
        cookie: ANY_COOKIE,
    };
    let request = InetRequest {
        family: if local_ip.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn own_uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    fn inode(stream: &TcpStream) -> u64 {
        rustix::fs::fstat(stream).unwrap().st_ino
    }

    /// Opens a connection; returns the client's end, the server's end, and their addresses.
    fn connection(address: &str) -> (TcpStream, TcpStream, SocketAddr, SocketAddr) {
        let listener = TcpListener::bind(address).unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let (accepted, address) = listener.accept().unwrap();
        (client, accepted, address, server)
    }

    #[test]
    fn a_connection_has_the_uid_of_the_process_that_opened_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (_client, ours, client, server) = connection(address);
            assert_eq!(uid_of(client, server, inode(&ours)).unwrap(), Some(own_uid()));
        }
    }

    #[test]
    fn a_closed_connection_has_no_owner() {
        let (stream, ours, client, server) = connection("127.0.0.1:0");
        let inode = inode(&ours);
        drop(stream);
        // FIN_WAIT2: held by the kernel, without a file.
        assert_eq!(look_up(client, server).unwrap(), None);
        assert_eq!(uid_of(client, server, inode).unwrap(), None);
        drop(ours);
        // TIME_WAIT.
        assert_eq!(look_up(client, server).unwrap(), None);
    }

    #[test]
    fn another_connection_from_the_same_port_is_not_mistaken_for_this_one() {
        let (_stream, ours, client, server) = connection("127.0.0.1:0");
        let another = inode(&ours) + 1;
        assert_eq!(uid_of(client, server, another).unwrap(), None);
    }

    #[test]
    fn a_listener_is_not_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let nowhere = "127.0.0.1:1".parse().unwrap();
        assert_eq!(look_up(server, nowhere).unwrap(), None);
        assert_eq!(look_up(nowhere, server).unwrap(), None);
    }
}
