//! Query to a name server that only tests whether it answers.

use super::checks::NameServer;
use super::error::NetworkError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

const PORT: u16 = 53;

/// Deadline for one server.
const DEADLINE: Duration = Duration::from_secs(2);

/// Most servers that are queried, as by the C library's resolver.
const MOST: usize = 3;

/// DNS message. Header: a fixed id, "recursion desired", one question. Question: name servers of the root.
const QUESTION: [u8; 17] = [0x6d, 0x69, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Bit in the third byte that marks an answer.
const ANSWER: u8 = 0x80;

/// Succeeds if one of the first servers answers, whatever the answer is.
pub(super) async fn any_answers(servers: &[NameServer]) -> Result<(), NetworkError> {
    let mut last = None;
    for server in servers.iter().take(MOST) {
        match timeout(DEADLINE, ask(server)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = Some((server, error)),
            Err(_) => last = Some((server, io::ErrorKind::TimedOut.into())),
        }
    }
    Err(match last {
        Some((server, source)) => NetworkError::NoNames { server: server.address.clone(), source },
        None => NetworkError::NoServers,
    })
}

/// Queries a server and waits for the answer without a time limit. Packets that are not the answer are ignored.
async fn ask(server: &NameServer) -> io::Result<()> {
    let (any, there): (IpAddr, SocketAddr) = match server.address.address {
        IpAddr::V4(v4) => (Ipv4Addr::UNSPECIFIED.into(), (v4, PORT).into()),
        IpAddr::V6(v6) => {
            (Ipv6Addr::UNSPECIFIED.into(), SocketAddrV6::new(v6, PORT, 0, server.scope).into())
        }
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Receive only from this address.
    socket.connect(there).await?;
    socket.send(&QUESTION).await?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= 12 && answer[..2] == QUESTION[..2] && answer[2] & ANSWER != 0 {
            return Ok(());
        }
    }
}
