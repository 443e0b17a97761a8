//! Whose a loopback TCP connection is: `sock_diag(7)` for exactly its four-tuple.
//!
//! The kernel keeps connections after their process has closed them (TIME_WAIT, FIN_WAIT, and those
//! without a file), and reports uid 0 for some of them. Only an ESTABLISHED socket that still
//! belongs to a file counts; for anything else the answer is "nobody".

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

/// `INET_DIAG_NOCOOKIE`: any socket of this tuple.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// One answer has 72 bytes and no attributes, as none are asked for.
const ANSWER_LEN: usize = 4096;

/// Don't wait: the kernel has answered when the request has been taken.
const MSG_DONTWAIT: i32 = 0x40;

/// The uid of the process that holds the `client` end of the connection to `server`; `None` if no
/// process does (any more).
pub(super) fn uid_of(client: SocketAddr, server: SocketAddr) -> io::Result<Option<u32>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    socket.send(&request(client, server), 0)?;
    let mut answer = vec![0; ANSWER_LEN];
    let len = socket.recv(&mut answer.as_mut_slice(), MSG_DONTWAIT)?;
    let answer = answer.get(..len).unwrap_or_default();
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(match answer.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
            owner(&response.header, client, server)
        }
        // ENOENT: no such socket.
        _ => None,
    })
}

/// The lookup falls back to listening sockets, so the answer must be about what was asked.
fn owner(found: &InetResponseHeader, client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let id = &found.socket_id;
    let is_it = (id.source_port, id.source_address.to_canonical())
        == (client.port(), client.ip().to_canonical())
        && (id.destination_port, id.destination_address.to_canonical())
            == (server.port(), server.ip().to_canonical());
    (is_it && found.state == TCP_ESTABLISHED && found.inode != 0).then_some(found.uid)
}

fn request(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (client_ip, server_ip) = (client.ip().to_canonical(), server.ip().to_canonical());
    let socket_id = SocketId {
        source_port: client.port(),
        destination_port: server.port(),
        source_address: client_ip,
        destination_address: server_ip,
        interface_id: 0,
        cookie: ANY_COOKIE,
    };
    let request = InetRequest {
        family: if client_ip.is_ipv4() { AF_INET } else { AF_INET6 },
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

    #[test]
    fn a_connection_belongs_to_the_process_that_made_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect(server).unwrap();
            let address = client.local_addr().unwrap();
            assert_eq!(uid_of(address, server).unwrap(), Some(own_uid()));
            // From the other end it is another socket.
            assert_eq!(uid_of(server, address).unwrap(), None, "not accepted: it has no file yet");
        }
    }

    #[test]
    fn a_connection_that_was_closed_is_nobodys() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let (accepted, address) = listener.accept().unwrap();
        assert_eq!(uid_of(address, server).unwrap(), Some(own_uid()));
        drop(client);
        // FIN_WAIT2: the kernel's own, without a file.
        assert_eq!(uid_of(address, server).unwrap(), None);
        drop(accepted);
        // TIME_WAIT.
        assert_eq!(uid_of(address, server).unwrap(), None);
    }

    #[test]
    fn a_listener_is_nobodys_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let nowhere = "127.0.0.1:1".parse().unwrap();
        assert_eq!(uid_of(server, nowhere).unwrap(), None);
        assert_eq!(uid_of(nowhere, server).unwrap(), None);
    }
}
