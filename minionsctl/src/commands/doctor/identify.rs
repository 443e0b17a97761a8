//! The service on an agent's port that does not answer an agent's questions: asked in other protocols.
//!
//! Only for an agent that has never answered: what answered once is an agent that hangs, or its guest is
//! paused, and some VMMs lose a paused guest when they are dialled. Only on the host of the socket.

use crate::agent::{AgentAddress, connect};
use crate::client::Client;
use minions_api::vm::Vm;
use minions_proto::AgentPort;
use minions_proto::stranger::{LOOKED_AT, Stranger};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// For a service to answer. One in a guest takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// The beginning of an HTTP/2 connection (RFC 9113, section 3.4): its preface and empty SETTINGS. Servers of
/// HTTP/1 answer to the preface, which is a request to them.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A TTRPC request for a method that no service has: header, then `service` and `method` as protobuf.
const TTRPC: &[u8] = b"\0\0\0\x13\0\0\0\x01\x01\0\x0a\x07minions\x12\x08Identify";

/// A service that listens on an agent's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Service {
    /// It speaks another protocol.
    Stranger(Stranger),
    /// It accepts connections and says nothing.
    Silent,
}

/// Identifies the service. `None` if this is not possible here, or if it may be an agent.
pub(super) async fn identify(client: &Client, known: &Vm) -> Option<Service> {
    let address = address(client, known)?;
    let mut silent = false;
    for question in [HTTP2, TTRPC] {
        let said = ask(&address, question).await?;
        match Stranger::recognise(&said) {
            Some(stranger) => return Some(Service::Stranger(stranger)),
            None if said.is_empty() => silent = true,
            None => return None,
        }
    }
    silent.then_some(Service::Silent)
}

/// The agent's address, if the socket is on this host and is the one that minionsd knows.
fn address(client: &Client, known: &Vm) -> Option<AgentAddress> {
    if known.last_seen.is_some() || !client.is_on_this_host() {
        return None;
    }
    let metadata = fs::metadata(&known.socket).ok()?;
    let same =
        (metadata.dev(), metadata.ino()) == (known.incarnation.device, known.incarnation.inode);
    let port = AgentPort::try_from(i64::from(known.agent_port)).ok()?;
    same.then(|| AgentAddress { socket: known.socket.clone().into(), port })
}

/// The first bytes that the service sends, at most [`LOOKED_AT`]. `None` without a connection.
async fn ask(address: &AgentAddress, question: &[u8]) -> Option<Vec<u8>> {
    let mut stream = connect(address).await.ok()?;
    let (mut said, mut len) = (vec![0; LOOKED_AT], 0);
    let exchange = async {
        // A service that speaks first may have closed already, and is heard all the same.
        let _ = stream.write_all(question).await;
        while let Ok(read @ 1..) = stream.read(&mut said[len..]).await {
            len += read;
        }
    };
    // What was said before the end of the patience counts.
    let _ = timeout(PATIENCE, exchange).await;
    said.truncate(len);
    Some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ttrpc_request_has_the_length_that_it_claims() {
        let (header, payload) = TTRPC.split_at(10);
        assert_eq!(usize::from(header[3]), payload.len());
        assert_eq!(usize::from(payload[1]), b"minions".len());
        assert_eq!(usize::from(payload[10]), b"Identify".len());
    }
}
